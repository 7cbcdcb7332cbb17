# SPDX-License-Identifier: Apache-2.0
"""Ray's metrics, replaced by lists."""

import pytest

from sd_runtime.observability import engine_metrics
from sd_runtime.observability.engine_metrics import RayMetrics


@pytest.fixture
def told(monkeypatch):
    found = []

    class Metric:
        def __init__(self, name, description, *more):
            assert description.endswith(".")
            self.name = name

        def tell(self, value, tags=None):
            found.append((self.name, value, tags))

        inc = observe = set = tell

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(engine_metrics, kind, Metric)
    return found


def test_each_observation_is_told(told):
    observer = RayMetrics()
    observer.load(3, 2)
    observer.step(2, 4, 0.1)
    observer.phase("decode", 0.2)
    observer.outcome("drawn")
    observer.texts(cached=1, encoded=0)
    observer.memory(7)
    assert told == [
        ("sd_waiting_pictures", 3, None),
        ("sd_running_pictures", 2, None),
        ("sd_batch_pictures", 2, None),
        ("sd_unet_rows", 4, None),
        ("sd_step_seconds", 0.1, None),
        ("sd_phase_seconds", 0.2, {"phase": "decode"}),
        ("sd_pictures", 1, {"outcome": "drawn"}),
        ("sd_texts", 1, {"encoding": "cached"}),
        ("sd_device_memory_bytes", 7, None),
    ]


def test_ray_takes_the_names_tags_and_bounds():
    observer = RayMetrics()
    observer.load(0, 0)
    observer.phase("queue", 0.1)
    observer.outcome("failed")
    observer.texts(cached=1, encoded=1)
