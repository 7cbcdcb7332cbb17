# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.builders.placement import worker_placement

GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


@pytest.fixture
def placed(resource):
    def build(**group):
        spec = resource(workerGroups=[{"name": "gpu", **group}]).spec
        return worker_placement(spec, spec.worker_groups[0])

    return build


def test_nothing_wished_is_nothing_but_the_gpu_taint(placed):
    assert placed() == {"tolerations": [GPU_TAINT]}


def test_gpu_taint_is_tolerated_once(placed):
    assert placed(tolerations=[GPU_TAINT])["tolerations"] == [GPU_TAINT]


def test_words_of_the_pod_api_pass_through(placed):
    wanted = {"nodeSelector": {"a": "b"}, "runtimeClassName": "nvidia", "priorityClassName": "high"}
    assert placed(**wanted) == {**wanted, "tolerations": [GPU_TAINT]}


def test_capacity_type_is_either_label(placed):
    terms = placed(capacityType="spot")["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert terms == [
        {"matchExpressions": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}]},
        {
            "matchExpressions": [
                {"key": "eks.amazonaws.com/capacityType", "operator": "In", "values": ["SPOT"]}
            ]
        },
    ]


def test_capacity_type_is_crossed_with_the_users_terms(placed):
    def term(value):
        return {"matchExpressions": [{"key": "zone", "operator": "In", "values": [value]}]}

    affinity = {
        "nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term("a"), term("b")]}},
        "podAffinity": {"x": 1},
    }
    found = placed(capacityType="on-demand", affinity=affinity)["affinity"]
    terms = found["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    pairs = [tuple(each["values"][0] for each in found["matchExpressions"]) for found in terms]
    assert pairs == [("a", "on-demand"), ("a", "ON_DEMAND"), ("b", "on-demand"), ("b", "ON_DEMAND")]
    assert found["podAffinity"] == {"x": 1}
