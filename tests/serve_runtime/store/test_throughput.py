# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_runtime.store.throughput import ThroughputEstimator


@pytest.fixture
def pace():
    return ThroughputEstimator()


def work(pace, seconds, *, start=0.0, times=1, done=1):
    """Work of so many seconds, one piece after the other."""
    for number in range(times):
        pace.begin(start + number * seconds)
        pace.end(start + (number + 1) * seconds, done)


def test_nothing_observed_is_no_rate_and_a_second_of_waiting(pace):
    assert pace.per_second() is None
    assert pace.retry_after(5.0) == 1


def test_rate_is_finished_work_per_busy_second(pace):
    work(pace, 2.0, times=5)
    assert pace.per_second() == pytest.approx(0.5)


def test_idle_time_does_not_count(pace):
    work(pace, 2.0)
    work(pace, 2.0, start=1000.0)
    assert pace.per_second() == pytest.approx(0.5)


def test_parallel_work_counts_its_time_once(pace):
    for _ in range(4):
        pace.begin(0.0)
    for _ in range(4):
        pace.end(2.0, 1)
    assert pace.per_second() == pytest.approx(2.0)


def test_refused_and_failed_work_is_not_finished(pace):
    work(pace, 1.0, times=2)
    work(pace, 2.0, start=2.0, done=0)
    assert pace.per_second() == pytest.approx(0.5)


def test_a_change_of_speed_shows_in_the_end(pace):
    work(pace, 10.0, times=300)
    work(pace, 1.0, start=3000.0, times=300)
    assert pace.per_second() == pytest.approx(1.0)


def test_each_refused_client_gets_a_place_of_its_own(pace):
    work(pace, 2.0, times=5)
    assert [pace.retry_after(10.0) for _ in range(4)] == [2, 4, 6, 8]
    assert pace.retry_after(100.0) == 2


def test_nobody_waits_longer_than_a_minute(pace):
    work(pace, 50.0)
    assert [pace.retry_after(50.0) for _ in range(3)] == [50, 60, 60]
