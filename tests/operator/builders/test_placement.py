# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.builders.placement import head_placement, worker_placement

GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
NEAR = {REQUIRED: [{"labelSelector": {"matchLabels": {"app": "cache"}}, "topologyKey": "zone"}]}


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
        "podAffinity": NEAR,
    }
    found = placed(capacityType="on-demand", affinity=affinity)["affinity"]
    terms = found["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    pairs = [tuple(each["values"][0] for each in found["matchExpressions"]) for found in terms]
    assert pairs == [("a", "on-demand"), ("a", "ON_DEMAND"), ("b", "on-demand"), ("b", "ON_DEMAND")]
    assert found["podAffinity"] == NEAR


def test_head_prefers_nodes_without_gpus_and_tolerates_none(resource):
    placed = head_placement(resource().spec)
    assert list(placed) == ["affinity"]
    (wish,) = placed["affinity"]["nodeAffinity"][PREFERRED]
    absent = {
        each["key"] for each in wish["preference"]["matchExpressions"] if each["operator"] == "DoesNotExist"
    }
    assert "nvidia.com/gpu.present" in absent


def test_users_wishes_for_the_head_come_first(resource):
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    wish = {"weight": 1, "preference": term}
    must = {"nodeSelectorTerms": [term]}
    head = {
        "nodeSelector": {"pool": "cpu"},
        "affinity": {"nodeAffinity": {PREFERRED: [wish], REQUIRED: must}},
    }
    placed = head_placement(resource(head=head).spec)
    assert placed["nodeSelector"] == {"pool": "cpu"}
    found = placed["affinity"]["nodeAffinity"]
    assert found[REQUIRED] == must
    assert found[PREFERRED][0] == wish
    assert len(found[PREFERRED]) == 2
