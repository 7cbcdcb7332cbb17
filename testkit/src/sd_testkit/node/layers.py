# SPDX-License-Identifier: Apache-2.0
"""Layers of images: a static busybox, and a folder of this host with something that tells two of them apart."""

import gzip
import io
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path


def busybox_layer(target: Path) -> None:
    """A tar of Debian's static busybox as `sh` and `sleep`."""
    found = shutil.which("busybox")
    if found is None:
        raise RuntimeError("no busybox on PATH: apt-get install busybox-static")
    with tarfile.open(target, "w") as archive:
        archive.add(Path(found).resolve(), "bin/busybox")
        for name in ("sh", "sleep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)


def compressed(target: Path, folder: Path, names: Sequence[str]) -> None:
    """Members of a folder as tar.gz, at the quickest level of gzip."""
    pack = ["tar", "--create", "--exclude=__pycache__", f"--directory={folder}", "--", *names]
    with target.open("wb") as file, subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
        subprocess.run(["gzip", "-1"], stdin=tar.stdout, stdout=file, check=True)
    # 1: a file changed meanwhile, as when an installer links it to another place; any content will do.
    if tar.returncode > 1:
        raise RuntimeError(f"tar of {folder} failed")


def marked_layer(target: Path, mark: str) -> None:
    """A tar.gz of one small file."""
    with tarfile.open(target, "w:gz") as archive:
        _add_mark(archive, mark)


def variant(target: Path, layer: Path, mark: str) -> None:
    """The same layer with a file before the others: other digests, so no node takes one for the other.

    A gzip file may have several members (RFC 1952), and a tar goes on until its end marker: nothing is compressed anew.
    """
    with target.open("wb") as file, layer.open("rb") as rest:
        file.write(gzip.compress(_unended(mark)))
        shutil.copyfileobj(rest, file)


def _unended(mark: str) -> bytes:
    """A tar of the mark without the end marker."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        _add_mark(archive, mark)
        end = archive.offset
    return stream.getvalue()[:end]


def _add_mark(archive: tarfile.TarFile, mark: str) -> None:
    entry = tarfile.TarInfo("mark")
    entry.size = len(mark)
    archive.addfile(entry, io.BytesIO(mark.encode()))
