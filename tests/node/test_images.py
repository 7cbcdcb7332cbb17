# SPDX-License-Identifier: Apache-2.0
"""The content of the images, and the bytes that an upgrade of them transfers."""

import shutil

import pytest

from sd_testkit.images import IMAGES, Store, build, obstacle
from sd_testkit.programs import cache

SOURCES = {
    "operator": "operator/src/sd_operator/__init__.py",
    "worker": "serve_runtime/src/sd_runtime/__init__.py",
}
USERS = {"operator": "65532", "worker": "1000"}
# Wanted by KubeRay's commands and probes, and by torch where it compiles for a CPU.
PROGRAMS = {"operator": ("python", "sdservice"), "worker": ("bash", "g++", "grep", "python", "ray", "wget")}
UNWANTED = {"operator": ("cc", "gcc", "g++", "pip", "uv"), "worker": ("pip", "uv")}

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "-")


@pytest.fixture(scope="module")
def store():
    return Store(cache() / "images")


@pytest.fixture(params=IMAGES, ids=lambda image: image.name)
def image(request):
    return request.param


@pytest.fixture
def changed(root, tmp_path, image):
    """What the image is built from, with a line more in its code."""
    shutil.copy(root / image.dockerfile, tmp_path)
    shutil.copy(root / "constraints-dev.txt", tmp_path)
    for folder in ("operator", "serve_runtime"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / SOURCES[image.name]
    source.write_text(f"{source.read_text()}\n# Changed.\n")
    return tmp_path


def test_a_change_of_code_moves_megabytes(store, image, changed):
    build(store, image)
    before = {layer.digest for layer in store.layers(image.reference)}
    reference = build(store, image, changed, f"localhost/{image.name}:changed")
    new = [layer.size for layer in store.layers(reference) if layer.digest not in before]
    assert 0 < sum(new) < 20e6, new


def test_it_has_what_is_called_in_it_and_no_more(store, image):
    reference = build(store, image)
    looked = (*PROGRAMS[image.name], *UNWANTED[image.name])
    found = store.run(
        reference, "sh", "-c", f"id -u; for each in {' '.join(looked)}; do command -v $each; done; true"
    )
    user, *paths = found.split()
    assert user == USERS[image.name]
    assert tuple(path.rpartition("/")[2] for path in paths) == PROGRAMS[image.name]


def test_nothing_of_ours_can_be_written_by_its_user(store, image):
    reference = build(store, image)
    assert store.run(reference, "sh", "-c", "find /opt -writable -not -type l") == ""
