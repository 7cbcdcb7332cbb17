# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.observe.nodes import Node, full_name, holds, read_node

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("owner/name:1", "docker.io/owner/name:1"),
        ("localhost/name:1", "localhost/name:1"),
        ("ghcr.io/owner/name:1", "ghcr.io/owner/name:1"),
        ("a.example:5000/name", "a.example:5000/name:latest"),
        (f"ghcr.io/owner/name:1@{DIGEST}", f"ghcr.io/owner/name@{DIGEST}"),
    ],
)
def test_names_are_written_out_as_runtimes_do(given, full):
    assert full_name(given) == full


@pytest.mark.parametrize(
    ("listed", "most", "held"),
    [
        ([["docker.io/owner/name@sha256:1", "docker.io/owner/name:1"]], 50, True),
        ([["docker.io/owner/name:2"]], 50, False),
        ([["docker.io/owner/name:2"]], 1, None),
        ([["docker.io/owner/name:2"]], -1, False),
        ([], 50, None),
    ],
    ids=["listed", "another tag", "list is full", "list is complete", "nothing listed"],
)
def test_a_list_of_images_tells_what_it_can(listed, most, held):
    node = {"metadata": {"name": "a"}, "status": {"images": [{"names": names} for names in listed]}}
    assert holds(read_node(node), "owner/name:1", most) is held


@pytest.mark.parametrize(
    ("amount", "count"), [("8", 8), (8, 8), ("1k", 1000), ("2Ki", 2048), ("1.5", 0), ("many", 0), (None, 0)]
)
def test_an_amount_that_is_no_count_is_none(amount, count):
    assert Node("a", allocatable={"example.org/gpu": amount}).offers("example.org/gpu") == count
    assert Node("a").offers("example.org/gpu") == 0
