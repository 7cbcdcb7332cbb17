# SPDX-License-Identifier: Apache-2.0
"""`hf://owner/name`: a Hugging Face repository at a pinned commit; safetensors only, never code."""

import os
from collections.abc import Callable
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
from sd_runtime.weights import store

_REFUSED = (401, 403)
_FILES = ["*.json", "*.txt", "*.model"]


def fetch(model: ModelConfig) -> Path:
    """Download what is missing into the cache and return the snapshot's folder.

    The token comes from HF_TOKEN in the environment.
    """
    repository = model.uri.removeprefix("hf://")
    # Below a folder only: a file in the repository's root is the whole model again, for other programs.
    weights = f"*/*.{model.variant}*.safetensors" if model.variant else "*/*.safetensors"
    return snapshot(
        f"model.uri: got {model.uri!r}",
        repository,
        model.revision,
        files=model.variant or "",
        allow=[*_FILES, weights],
        ignore=["*non_ema*", *([] if model.variant else ["*.fp16*.safetensors"])],
        also=_plain_weights if model.variant else lambda _: [],
    )


def _plain_weights(folder: Path) -> list[str]:
    """Patterns of the weights of components that have none of the variant: they come in their plain form."""
    return [
        f"{each.name}/*.safetensors"
        for each in sorted(folder.iterdir())
        if (each / "config.json").is_file() and not any(each.glob("*.safetensors"))
    ]


def commit(folder: Path) -> str:
    """The commit of a snapshot: huggingface_hub names the folder after it; empty for another folder."""
    return folder.name if store.COMMIT.fullmatch(folder.name) else ""


def snapshot(
    what: str,
    repository: str,
    revision: str | None,
    *,
    files: str,
    allow: list[str],
    ignore: list[str],
    also: Callable[[Path], list[str]] = lambda _: [],
) -> Path:
    """The folder of some files of a repository.

    Args:
        what: names field and value, for errors.
        repository: owner/name.
        revision: commit, branch or tag; None: the main branch.
        files: names the selection, which `allow` and `ignore` make.
        allow: glob patterns of what is wanted.
        ignore: and of what is not.
        also: patterns of what is wanted as well, once the folder is there.

    Raises:
        ModelUnavailable: they cannot be had.
    """

    def download_those(wanted: list[str]) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=wanted,
                ignore_patterns=ignore,
                token=os.environ.get("HF_TOKEN") or None,
            )
        )

    def download() -> Path:
        folder = download_those(allow)
        more = also(folder)
        return download_those(more) if more else folder

    try:
        return store.fetch(repository, revision, files, download)
    except Exception as error:  # the HTTP library below huggingface_hub, and with it the errors, changes
        raise failure(what, error) from error


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
    words = str(error).splitlines()[0] if str(error) else "no message"
    return ModelUnavailable(f"{what}: the download failed: {type(error).__name__}: {words}")


def _answer(error: BaseException | None) -> HfHubHTTPError | None:
    """The hub's answer behind an error: huggingface_hub hides it behind one about its own cache."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__ or error.__context__
    return error


def _status(error: HfHubHTTPError) -> str:
    return f"HTTP {error.response.status_code}"
