# SPDX-License-Identifier: Apache-2.0
"""The download cache: one process downloads, complete downloads are marked, and incomplete ones are downloaded again."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sd_runtime.weights import store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = b"weights" * 1000


class Hub:
    """Downloads as huggingface_hub lays them out: a folder of links to files named by their checksums."""

    def __init__(self, root):
        self.root = root
        self.contents = [WEIGHTS]  # of the downloads to come; the last one for all after it
        self.downloads = 0

    def __call__(self):
        content = self.contents.pop(0) if len(self.contents) > 1 else self.contents[0]
        self.downloads += 1
        folder, blobs = self.root / "models/snapshots/a", self.root / "models/blobs"
        for each in (folder, blobs):
            each.mkdir(parents=True, exist_ok=True)
        blob = blobs / hashlib.sha256(WEIGHTS).hexdigest()
        if not blob.exists():
            blob.write_bytes(content)
        link = folder / "model.safetensors"
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(blob, folder))
        (folder / "model_index.json").write_text("{}")
        return folder


@pytest.fixture
def hub(tmp_path):
    return Hub(tmp_path)


@pytest.fixture
def fetch(hub, tmp_path):
    def ask(revision=COMMIT, files=""):
        return store.fetch("owner/name", revision, files, hub, tmp_path)

    return ask


def test_a_commit_is_downloaded_once(fetch, hub):
    assert fetch() == fetch()
    assert hub.downloads == 1


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_branch_is_asked_for_each_time(fetch, hub, revision):
    fetch(revision)
    fetch(revision)
    assert hub.downloads == 2


def test_each_selection_of_files_is_whole_by_itself(fetch, hub):
    fetch()
    fetch(files="fp16")
    assert hub.downloads == 2


def test_many_that_ask_at_once_download_once(fetch, hub):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: fetch(), range(8)))) == 1
    assert hub.downloads == 1


def test_another_process_is_waited_for(fetch, hub, tmp_path):
    """Threads share a process; replicas do not. The other one is ended without letting go of its lock."""
    (tmp_path / "complete").mkdir()
    lock = tmp_path / f"complete/owner--name--{COMMIT}.lock"
    code = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]);"
        " lock.acquire(); print('held', flush=True); time.sleep(600)"
    )
    with (
        ThreadPoolExecutor(1) as pool,
        subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE) as other,
    ):
        try:
            assert other.stdout.readline() == b"held\n"
            waiting = pool.submit(fetch)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=1)
            assert hub.downloads == 0
        finally:
            other.kill()
        waiting.result(timeout=60)
    assert hub.downloads == 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.safetensors").resolve().write_bytes(b"half"),
    ],
    ids=["gone", "cut"],
)
def test_what_is_no_longer_whole_is_downloaded_again(fetch, hub, harm):
    harm(fetch())
    assert (fetch() / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.downloads >= 2


def test_a_marker_in_part_counts_for_nothing(fetch, hub, tmp_path):
    fetch()
    (marker,) = (tmp_path / "complete").glob("*.json")
    marker.write_text('{"folder": "')
    fetch()
    assert hub.downloads == 2


def test_a_wrong_file_is_downloaded_again(fetch, hub):
    hub.contents = [b"noise", WEIGHTS]
    assert (fetch() / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.downloads == 2


def test_a_file_that_stays_wrong_is_told(fetch, hub, tmp_path):
    hub.contents = [b"noise"]
    with pytest.raises(store.Corrupt, match=r"the checksum of model\.safetensors differs from the hub's"):
        fetch()
    assert not list((tmp_path / "complete").glob("*.json"))


def test_the_cache_may_be_moved(fetch, hub, tmp_path):
    """Another pod mounts the volume elsewhere."""
    fetch()
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    try:
        found = store.fetch("owner/name", COMMIT, "", hub, moved)
        assert found.is_relative_to(moved)
        assert hub.downloads == 1
    finally:
        moved.rename(tmp_path)
