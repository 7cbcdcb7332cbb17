# SPDX-License-Identifier: Apache-2.0
import socket
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sd_operator.api import Status
from sd_operator.metrics import Metrics
from sd_operator.observe import cold_start
from sd_operator.observe.cold_start import Phase, Start
from sd_operator.reconcile.reporter import Reporter

START = Start("w", {Phase.NODE: 13.0, Phase.IMAGE: 121.0}, datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture
def metrics():
    return Metrics()


def test_a_start_is_counted_by_phase_and_as_a_whole(metrics):
    metrics.started(START)
    metrics.drew(3.5)
    value = metrics.registry.get_sample_value
    name = "sdservice_cold_start_phase_seconds"
    assert value(f"{name}_sum", {"phase": "image"}) == 121
    assert value(f"{name}_sum", {"phase": "first_picture"}) == 3.5
    assert value(f"{name}_count", {"phase": "weights"}) is None, "a phase that was not gone through"
    assert value("sdservice_cold_start_seconds_sum") == 134


def test_polls_are_counted_by_what_came_of_them(metrics):
    for outcome in ("answered", "late", "answered"):
        metrics.polled("dashboard")(outcome)
    value = metrics.registry.get_sample_value
    assert value("sdservice_polls_total", {"of": "dashboard", "outcome": "answered"}) == 2
    assert value("sdservice_polls_total", {"of": "service", "outcome": "answered"}) is None


def test_prometheus_can_read_them(metrics):
    metrics.started(START)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    metrics.serve(port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'sdservice_cold_start_phase_seconds_bucket{le="180.0",phase="image"} 1.0' in text


def test_each_start_is_counted_once_however_often_it_is_looked_at(metrics, monkeypatch):
    """A restart of the operator in between changes nothing: the status on record tells what was counted."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    reporter = Reporter(None, metrics, lambda: now)
    monkeypatch.setattr(cold_start, "starts", lambda snapshot, _: snapshot)
    first = cold_start.last((START,), None, now)
    drew = (replace(START, first_picture_seconds=3.5),)
    second = cold_start.last(drew, first, now)
    for snapshot, before, after in [
        ((START,), None, first),
        ((START,), first, first),
        (drew, first, second),
        (drew, second, second),
        ((), second, second),
    ]:
        reporter.measure(snapshot, Status(cold_start=before), Status(cold_start=after))
    value = metrics.registry.get_sample_value
    assert value("sdservice_cold_start_seconds_count") == 1
    name = "sdservice_cold_start_phase_seconds_count"
    assert (value(name, {"phase": "node"}), value(name, {"phase": "first_picture"})) == (1, 1)
