# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from sd_runtime.startup import StartReport, Startup


@pytest.fixture
def clock():
    """Seconds that a test moves on."""

    class Clock:
        now = 50.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def told():
    return []


@pytest.fixture
def startup(told, clock):
    return Startup(told.append, clock, began=1000.0)


def test_phases_follow_each_other_without_a_gap(startup, told, clock):
    startup.enter("import")
    clock.now += 10
    startup.enter("weights")
    clock.now += 2.5
    startup.done()
    assert told == [
        StartReport(1000.0, {}, "import", 1000.0),
        StartReport(1000.0, {"import": 10.0}, "weights", 1010.0),
        StartReport(1000.0, {"import": 10.0, "weights": 2.5}, "", 1012.5),
    ]
    assert told[-1].since == told[-1].began + sum(told[-1].seconds.values())


def test_the_first_picture_is_told_of_afterwards(startup, told):
    startup.enter("import")
    startup.done()
    startup.drew(3.5)
    assert told[-1] == replace(told[-2], first_picture_seconds=3.5)


def test_versions_are_told_once_they_are_known(told, clock):
    startup = Startup(told.append, clock, began=1000.0, ray="2.60.0")
    startup.enter("weights")
    startup.fetched("0123abcd")
    startup.enter("pipeline")
    assert [(each.ray, each.revision) for each in told] == [("2.60.0", ""), ("2.60.0", "0123abcd")]
