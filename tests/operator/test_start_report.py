# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime

import pytest

from sd_operator.start_report import StartReport, read_starts

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


def test_an_answer_of_no_such_kind_tells_nothing():
    assert read_starts({}) == {}
