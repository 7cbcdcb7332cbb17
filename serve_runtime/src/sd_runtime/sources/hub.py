# SPDX-License-Identifier: Apache-2.0
"""`hf://owner/name`: a Hugging Face repository at a pinned commit; safetensors only, never code."""

import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sd_runtime.config import ModelConfig
from sd_runtime.errors import ModelForbidden, ModelNotFound, ModelUnavailable

_REFUSED = (401, 403)
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
        raise failure(f"model.uri: got {model.uri!r}", error) from error
    return Path(folder)


def failure(what: str, error: Exception) -> ModelUnavailable:
    """The error for a download that failed; `what` names field and value."""
    if isinstance(error, GatedRepoError):
        return ModelForbidden(
            f"{what}: the repository is gated: accept its licence and set tokenSecretRef ({_status(error)})"
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFound(f"{what}: the repository has no such revision ({_status(error)})")
    if isinstance(error, RepositoryNotFoundError):
        return ModelNotFound(
            f"{what}: there is no such repository, or it is private and needs tokenSecretRef ({_status(error)})"
        )
    answer = _answer(error)
    if answer is not None and answer.response.status_code in _REFUSED:
        return ModelForbidden(f"{what}: the hub refuses the token of tokenSecretRef ({_status(answer)})")
    words = str(error).splitlines()[0] if str(error) else "no answer"
    return ModelUnavailable(f"{what}: {type(error).__name__}: {words}")


def _answer(error: BaseException | None) -> HfHubHTTPError | None:
    """The hub's answer behind an error: huggingface_hub hides it behind one about its own cache."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__ or error.__context__
    return error


def _status(error: HfHubHTTPError) -> str:
    return f"HTTP {error.response.status_code}"
