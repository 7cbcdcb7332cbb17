# SPDX-License-Identifier: Apache-2.0
"""A cache of downloads on a volume that replicas, workers and preload pods may share.

One process downloads while the others wait. A complete download is verified against the hub's checksums and gets a
marker file. Files with a marker are used without a call to the hub, so a replica starts even if the hub is down. An
interrupted download continues where it stopped, because huggingface_hub keeps partial files.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from huggingface_hub import constants

logger = logging.getLogger(__name__)

COMMIT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")
_LOG_SECONDS = 30.0
_BLOCK = 2**24

Download = Callable[[], Path]


class Corrupt(Exception):
    """The checksums of files differ from the hub's, even after a second download."""


def fetch(
    repository: str, revision: str | None, files: str, download: Download, root: Path | None = None
) -> Path:
    """Return the folder of a repository's files at a revision. Only one process downloads them at a time.

    Args:
        repository: owner/name.
        revision: a commit is cached permanently; a branch or tag is checked at the hub each time.
        files: a name that distinguishes this selection of files from others of the repository.
        download: downloads the missing files and returns their folder.
        root: root folder of the cache; huggingface_hub's by default.

    Raises:
        Corrupt: the checksums of files differ from the hub's, even after a second download.
        OSError: the volume is not writable or does not support locks.
    """
    pinned = revision is not None and COMMIT.fullmatch(revision) is not None
    name = re.sub(r"[^A-Za-z0-9._-]+", "--", "--".join(filter(None, (repository, revision, files))))
    marker = (root or Path(constants.HF_HUB_CACHE)) / "complete" / f"{name}.json"
    if pinned and (folder := _marked(marker)) is not None:
        return folder
    marker.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(marker.with_suffix(".lock"), repository):
        if pinned and (folder := _marked(marker)) is not None:
            return folder
        folder = _whole(download)
        if pinned:
            _mark(marker, folder)
    return folder


def _one_at_a_time(lock: Path, repository: str) -> AbstractContextManager[Any]:
    """Take the lock. If its process dies, the kernel releases it; on network file systems the server does."""
    taken = FileLock(lock)
    while True:
        try:
            return taken.acquire(timeout=_LOG_SECONDS)
        except Timeout:
            logger.info("waiting until another process has downloaded %s", repository)


def _whole(download: Download) -> Path:
    folder = download()
    if not (bad := _corrupt(folder)):
        return folder
    for file in bad:
        logger.warning("the checksum of %s differs from the hub's; the file is downloaded again", file.name)
        file.resolve().unlink(missing_ok=True)
        file.unlink(missing_ok=True)
    folder = download()
    if bad := _corrupt(folder):
        raise Corrupt(f"the checksum of {bad[0].name} differs from the hub's, even after a second download")
    return folder


def _corrupt(folder: Path) -> list[Path]:
    """The large files whose checksum differs from their name in the cache of huggingface_hub."""
    began, size, bad = time.monotonic(), 0, []
    for file in _files(folder):
        stored = file.resolve()
        if _SHA256.fullmatch(stored.name):
            size += stored.stat().st_size
            if _digest(stored) != stored.name:
                bad.append(file)
    logger.info("verified the checksums of %.1f GB in %.1f s", size / 1e9, time.monotonic() - began)
    return bad


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file())


def _mark(marker: Path, folder: Path) -> None:
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in _files(folder)}
    content = {"folder": os.path.relpath(folder, marker.parent), "files": sizes}
    draft = marker.with_suffix(f".{os.getpid()}.draft")
    with draft.open("w", encoding="utf-8") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(marker)


def _marked(marker: Path) -> Path | None:
    """The folder of a marker if all of its files exist with their sizes, else None."""
    try:
        content: dict[str, Any] = json.loads(marker.read_text("utf-8"))
        folder = marker.parent / content["folder"]
        found = all((folder / name).stat().st_size == size for name, size in content["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return folder.resolve() if found and content["files"] else None
