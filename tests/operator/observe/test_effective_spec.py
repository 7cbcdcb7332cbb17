# SPDX-License-Identifier: Apache-2.0
"""The effective spec that is read back from a RayService equals the spec from which it was built."""

import pytest
import yaml

from sd_operator.api import parse
from sd_operator.builders.pod import image
from sd_operator.builders.ray_service import ray_service
from sd_operator.observe.effective_spec import of_ray_service, of_spec
from sd_operator.settings import Settings

SETTINGS = Settings()
GROUPS = [{"name": "l4", "gpusPerWorker": 4}, {"name": "a10", "maxReplicas": 3}]


def both(resource):
    asked = of_spec(resource.spec, image(resource.spec, SETTINGS))
    return asked, of_ray_service(ray_service(resource, SETTINGS), preloads=asked.preloads)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"suspend": True, "imagePreload": {"mode": "Disabled"}},
        {"model": {"preset": "sdxl-turbo", "loras": [{"name": "w", "uri": "file:///w", "strength": 0.8}]}},
        {"replicas": {"min": 0, "max": 6}, "limits": {"coldStartTimeoutSeconds": 77, "maxSteps": 33}},
        {"replicas": {"min": 2, "max": 6}, "workerGroups": [{"name": "a", "gpusPerWorker": 8}]},
        {"gpusPerReplica": 1, "replicasPerGpu": 3, "workerGroups": GROUPS},
        {"image": {"repository": "example.org/worker", "tag": "v9"}, "warmup": {"shapes": [{"width": 64, "height": 64}]}},
        {"autoscaling": {"downscaleDelaySeconds": 44, "idleWorkerSeconds": 55}},
        {"upgrade": {"strategy": "InPlaceOnly"}},
        {"upgrade": {"strategy": "Incremental", "incremental": {"gatewayClassName": "istio"}}},
        {"head": {"redis": {"address": "redis:6379"}}},
    ],
    ids=lambda spec: next(iter(spec), "quickstart"),
)  # fmt: skip
def test_what_a_ray_service_asks_for_is_what_its_spec_asked_for(resource, spec):
    asked, read_back = both(resource(**spec))
    assert read_back == asked


def test_so_for_every_example(root):
    for path in sorted((root / "examples").glob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text()):
            asked, read_back = both(parse(body))
            assert read_back == asked, path.name


@pytest.mark.parametrize("config", ["", "[", "applications: []", "- 1"])
def test_a_ray_service_that_someone_emptied_can_still_be_read(config):
    found = of_ray_service({"spec": {"serveConfigV2": config}}, preloads=False)
    assert (found.low, found.high, found.groups, found.suspend) == (1, 1, {}, False)
