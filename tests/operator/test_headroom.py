# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.headroom import shortage


def node(name, gpus, *, labels=None, taints=(), ready="True", unschedulable=False):
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"taints": list(taints), "unschedulable": unschedulable},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def pod(where, gpus, *, phase="Running", **labels):
    container = {"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    placed = {"nodeName": where} if where else {}
    return {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], **placed},
        "status": {"phase": phase},
    }


@pytest.fixture
def lacking(resource):
    def ask(nodes, pods=(), **spec):
        wanted = resource(**({"replicas": {"min": 2, "max": 4}} | spec)).spec
        return shortage(wanted, "imagine-new", nodes, pods)

    return ask


def test_room_enough_is_no_shortage(lacking):
    assert lacking([node("a", 1), node("b", 4)]) == ""


def test_a_shortage_counts_workers_and_gpus(lacking):
    told = lacking([node("a", 2)], [pod("a", 1), pod("a", 1, phase="Succeeded")])
    assert told.startswith(
        "1 of the 2 workers it still has to start find no room: the nodes that match lack 1 nvidia"
    )


def test_workers_of_the_second_cluster_that_have_a_place_need_no_other(lacking):
    ours = {"ray.io/cluster": "imagine-new", "ray.io/group": "gpu"}
    assert lacking([node("a", 2)], [pod("a", 1, **ours), pod("", 1, **ours)]) == ""
    assert lacking([node("a", 2)], [pod("a", 1), pod("", 1, **ours)])


def test_placeholders_give_way(lacking):
    ours = {"sdservice.dev/name": "any", "app.kubernetes.io/component": "warm"}
    assert lacking([node("a", 2)], [pod("a", 2, **ours)]) == ""
    assert lacking([node("a", 2)], [pod("a", 2, **{"app.kubernetes.io/component": "warm"})])


def test_gpus_of_two_nodes_do_not_make_one_worker(lacking):
    groups = [{"name": "gpu", "gpusPerWorker": 2}]
    assert "lack 2 nvidia.com/gpu" in lacking([node("a", 1), node("b", 1)], workerGroups=groups)


@pytest.mark.parametrize(
    "unfit",
    [
        node("a", 4, ready="False"),
        node("a", 4, unschedulable=True),
        node("a", 4, taints=[{"key": "spot", "value": "true", "effect": "NoSchedule"}]),
        node("a", 4, labels={"pool": "cpu"}),
    ],
    ids=["not ready", "cordoned", "tainted", "not selected"],
)
def test_a_node_that_takes_no_worker_has_no_room(lacking, unfit):
    groups = [{"name": "gpu", "nodeSelector": {"pool": "l4"}}]
    if "labels" in unfit["metadata"] and not unfit["metadata"]["labels"]:
        unfit["metadata"]["labels"] = {"pool": "l4"}
    assert lacking([unfit], workerGroups=groups)


@pytest.mark.parametrize(
    "taint",
    [
        {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"},
        {"key": "spot", "value": "true", "effect": "NoExecute"},
        {"key": "other", "effect": "PreferNoSchedule"},
    ],
    ids=["of the GPU", "tolerated", "a preference"],
)
def test_a_taint_that_is_accepted_is_no_hindrance(lacking, taint):
    groups = [{"name": "gpu", "tolerations": [{"key": "spot", "value": "true"}]}]
    assert lacking([node("a", 4, taints=[taint])], workerGroups=groups) == ""


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"operator": "In", "values": ["l4", "a10g"]}, True),
        ({"operator": "NotIn", "values": ["l4"]}, False),
        ({"operator": "Exists"}, True),
        ({"operator": "DoesNotExist"}, False),
    ],
)
def test_node_affinity_selects(lacking, expression, fits):
    term = {"matchExpressions": [{"key": "gpu", **expression}]}
    must = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    groups = [{"name": "gpu", "affinity": {"nodeAffinity": must}}]
    assert (lacking([node("a", 4, labels={"gpu": "l4"})], workerGroups=groups) == "") is fits


def test_capacity_type_selects_nodes_of_karpenter_or_eks(lacking):
    groups = [{"name": "gpu", "capacityType": "spot"}]
    eks = node("a", 4, labels={"eks.amazonaws.com/capacityType": "SPOT"})
    assert lacking([eks], workerGroups=groups) == ""
    assert lacking([node("a", 4)], workerGroups=groups)


def test_a_cpu_service_is_short_of_no_gpus(lacking):
    assert lacking([], gpusPerReplica=0) == ""
