# SPDX-License-Identifier: Apache-2.0
"""Image layers: a static busybox, and a host folder with a mark that makes two layers different."""

import gzip
import io
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path


def busybox_layer(target: Path) -> None:
    """Return a tar of Debian's static busybox as `sh` and `sleep`."""
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
    """Return members of a folder as tar.gz, at the fastest level of gzip."""
    pack = ["tar", "--create", "--exclude=__pycache__", f"--directory={folder}", "--", *names]
    with target.open("wb") as file, subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
        subprocess.run(["gzip", "-1"], stdin=tar.stdout, stdout=file, check=True)
    # Exit status 1: a file changed meanwhile, as when an installer links it to another place. Any content is
    # acceptable.
    if tar.returncode > 1:
        raise RuntimeError(f"tar of {folder} failed")


def marked_layer(target: Path, mark: str) -> None:
    """Return a tar.gz of one small file."""
    with tarfile.open(target, "w:gz") as archive:
        _add_mark(archive, mark)


def variant(target: Path, layer: Path, mark: str) -> None:
    """Return the same layer with one more file in front.

    The digests differ, so a node treats the layers as different.

    A gzip file may have several members (RFC 1952), and a tar continues until its end marker. The data is therefore
    not compressed again.
    """
    with target.open("wb") as file, layer.open("rb") as rest:
        file.write(gzip.compress(_unended(mark)))
        shutil.copyfileobj(rest, file)


def _unended(mark: str) -> bytes:
    """Return a tar of the mark without the end marker."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        _add_mark(archive, mark)
        end = archive.offset
    return stream.getvalue()[:end]


def _add_mark(archive: tarfile.TarFile, mark: str) -> None:
    entry = tarfile.TarInfo("mark")
    entry.size = len(mark)
    archive.addfile(entry, io.BytesIO(mark.encode()))
