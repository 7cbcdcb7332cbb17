# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_runtime.await_workers import await_none


class Time:
    """Passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(
    ("begin", "end", "waited"),
    [(0, 0, 10), (0, 4, 10), (8, 40, 40), (0, 1000, 100)],
    ids=["nobody drains", "done at once", "told late", "for ever"],
)
def test_the_head_waits_for_workers_that_drain_and_not_for_ever(begin, end, waited):
    time = Time()

    def draining():
        return ["worker"] if begin <= time.now < end else []

    none_left = await_none(draining, 100, notice=10, clock=time.clock, sleep=time.sleep)
    assert none_left is (end < 100)
    assert time.now == waited
