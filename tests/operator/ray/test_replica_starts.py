# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime

import pytest

from sd_operator.ray.replica_starts import StartReport, read_starts

TOLD = {
    "began": 1767323045.5,
    "seconds": {"import": 10, "weights": 17.8},
    "phase": "pipeline",
    "since": 1767323073.25,
}
READ = StartReport(
    datetime(2026, 1, 2, 3, 4, 5, 500000, UTC),
    {"import": 10.0, "weights": 17.8},
    "pipeline",
    datetime(2026, 1, 2, 3, 4, 33, 250000, UTC),
)  # fmt: skip


def test_a_start_is_read():
    assert read_starts({"starts": {"a": {**TOLD, "first_picture_seconds": None}}}) == {"a": READ}


@pytest.mark.parametrize(
    "other",
    [None, [], "x", {}, {**TOLD, "began": "now"}, {**TOLD, "seconds": [1]}, {**TOLD, "since": 1e99}],
    ids=str,
)
def test_what_another_release_may_answer_is_left_out(other):
    assert read_starts({"starts": {"a": TOLD, "b": other}}) == {"a": READ}
    assert read_starts({"starts": other}) == {}


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ({"ray": "2.60.0", "revision": COMMIT}, ("2.60.0", COMMIT)),
        ({"ray": "2.60.0.post1", "revision": ""}, ("2.60.0.post1", "")),
        ({}, ("", "")),
        ({"ray": None, "revision": None}, ("", "")),
        ({"ray": 2.6, "revision": [COMMIT]}, ("", "")),
        ({"ray": "\x1b[31m2.60.0", "revision": "main"}, ("", "")),
        ({"ray": "9" * 5000, "revision": COMMIT * 2}, ("", "")),
    ],
    ids=["both", "a patched Ray", "an older image", "null", "no texts", "no versions", "too long"],
)
def test_versions_are_read_where_they_are_some(told, read):
    found = read_starts({"starts": {"a": TOLD | told}})["a"]
    assert (found.ray, found.revision) == read


def test_an_answer_of_no_such_kind_tells_nothing():
    assert read_starts({}) == {}


def test_what_loading_the_model_brought_is_read():
    loaded = {"warnings": ["diffusers: no"], "refused_loras": {"ink": "loras: ink: no"}, "batching": "step"}
    found = read_starts({"starts": {"a": TOLD | loaded}})["a"]
    assert (found.warnings, found.refused_loras, found.batching) == (
        ("diffusers: no",),
        {"ink": "loras: ink: no"},
        "step",
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"warnings": "text", "refused_loras": ["ink"], "batching": 1},
        {"warnings": [1, None], "refused_loras": {"ink": 5}, "batching": "rows"},
        {"warnings": None, "refused_loras": None, "batching": None},
    ],
)
def test_of_another_form_it_says_nothing(odd):
    found = read_starts({"starts": {"a": TOLD | odd}})["a"]
    assert (found.warnings, found.refused_loras, found.batching) == ((), {}, "")


def test_a_flood_of_it_is_cut():
    flood = {
        "warnings": ["w" * 10_000] * 1000,
        "refused_loras": {f"l{each}": "x" * 10_000 for each in range(1000)},
    }
    found = read_starts({"starts": {"a": TOLD | flood}})["a"]
    assert sum(map(len, found.warnings)) + sum(map(len, found.refused_loras.values())) < 50_000
