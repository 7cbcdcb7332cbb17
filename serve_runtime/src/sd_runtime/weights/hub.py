# SPDX-License-Identifier: Apache-2.0
"""The source `hf://owner/name`: a Hugging Face repository at a revision. Only safetensors are fetched, never code."""

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
    """Download the missing files of a model into the cache, and return the folder of the snapshot.

    The token comes from the environment variable HF_TOKEN.
    """
    repository = model.uri.removeprefix("hf://")
    # Only files in folders: a file in the repository's root is a copy of the whole model for other programs.
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
    """Patterns for the plain weights of components that have no weights of the variant."""
    return [
        f"{each.name}/*.safetensors"
        for each in sorted(folder.iterdir())
        if (each / "config.json").is_file() and not any(each.glob("*.safetensors"))
    ]


def commit(folder: Path) -> str:
    """The commit of a snapshot, after which huggingface_hub names its folder. It is empty for any other folder."""
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
    """Download a selection of files of a repository, and return their folder.

    Args:
        what: field and value, as the start of error messages.
        repository: owner/name.
        revision: commit, branch or tag; None means the main branch.
        files: a name for the selection that `allow` and `ignore` define.
        allow: glob patterns of the files to download.
        ignore: glob patterns of the files to leave out.
        also: returns further patterns to download, from the folder of the first download.

    Raises:
        ModelUnavailable: the files cannot be downloaded.
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
    except Exception as error:  # its HTTP library and that library's errors differ between versions
        raise failure(what, error) from error


def failure(what: str, error: Exception) -> ModelUnavailable:
    """The error for a failed download. `what` is the field and value at the start of the message."""
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
    """The hub's HTTP error that caused an error, or None. huggingface_hub wraps it in an error about its own cache."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__ or error.__context__
    return error


def _status(error: HfHubHTTPError) -> str:
    return f"HTTP {error.response.status_code}"
