# SPDX-License-Identifier: Apache-2.0
"""The dependencies of preload DaemonSets.

`tests/operator/observe/test_node_cache.py` covers images from an external source.
"""

import pytest

from sd_operator.builders.preload import preload_daemon_sets
from sd_operator.observe.node_dependency import concerns, of_daemon_sets
from sd_operator.observe.nodes import read_node
from sd_operator.settings import Settings

GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


@pytest.fixture
def dependency(resource):
    group = {"name": "gpu", "nodeSelector": {"pool": "l4"}}
    wanted = resource(workerGroups=[group], image={"repository": "example.org/worker", "tag": "1"})
    return of_daemon_sets(preload_daemon_sets(wanted, Settings()))


def node(*images, ready="True", pool="l4"):
    return read_node(
        {
            "metadata": {"name": "a", "labels": {"pool": pool}},
            "spec": {"taints": [GPU_TAINT]},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "images": [{"names": [each]} for each in images],
            },
        }
    )


HELD, LOST = ("example.org/worker:1", "example.org/pause:1"), ("example.org/pause:1",)


@pytest.mark.parametrize(
    ("before", "after", "concerned"),
    [
        (node(*HELD), node(*LOST), True),
        (node(*HELD), node(*HELD, "example.org/other:1"), False),
        (node(*HELD), node(*HELD, ready="False"), True),
        (node(*HELD, pool="t4"), node(*LOST, pool="t4"), False),
        (node(), node(*HELD), False),
        (node(*HELD, ready="False"), node(*LOST, ready="False"), False),
    ],
    ids=["lost", "another one comes", "not ready", "another pool", "list comes", "not ready anyway"],
)
def test_only_a_loss_concerns_what_preload_pods_hold(dependency, before, after, concerned):
    assert concerns(dependency, [(before, after)], most_listed=50) is concerned


def test_services_of_one_shape_depend_on_the_same(resource):
    def of(pool, **spec):
        wanted = resource(workerGroups=[{"name": "gpu", "nodeSelector": {"pool": pool}}], **spec)
        return of_daemon_sets(preload_daemon_sets(wanted, Settings()))

    assert of("l4") == of("l4", replicas={"max": 9}) != of("t4")
    assert of_daemon_sets([]) is None
