# SPDX-License-Identifier: Apache-2.0
"""`hf://owner/name`: a Hugging Face repository at a pinned commit; safetensors only, never code."""

import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from sd_runtime.config import ModelConfig
from sd_runtime.errors import ModelUnavailable

_FILES = ["*.json", "*.txt", "*.model"]


def fetch(model: ModelConfig) -> Path:
    """Download what is missing into the Hugging Face cache and return the snapshot's folder.

    The token comes from HF_TOKEN in the environment.
    """
    repository = model.uri.removeprefix("hf://")
    # Below a folder only: a file in the repository's root is the whole model again, for other programs.
    weights = f"*/*.{model.variant}*.safetensors" if model.variant else "*/*.safetensors"
    try:
        folder = snapshot_download(
            repository,
            revision=model.revision,
            allow_patterns=[*_FILES, weights],
            ignore_patterns=["*non_ema*", *([] if model.variant else ["*.fp16*.safetensors"])],
            token=os.environ.get("HF_TOKEN") or None,
        )
    except (
        Exception
    ) as error:  # the HTTP library below, and with it the errors, changes with huggingface_hub's version
        raise ModelUnavailable(f"model.uri: got {model.uri!r}: {_reason(error)}") from error
    return Path(folder)


def _reason(error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return "the repository is gated: accept its licence and set tokenSecretRef"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private and needs tokenSecretRef"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'}"
