# SPDX-License-Identifier: Apache-2.0
"""The operator sends objects in the form of KubeRay's Go types: the stand-in, which follows those types, changes nothing."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sd_operator.api import parse
from sd_operator.builders.canonical import canonical, quantity
from sd_operator.builders.ray_service import ray_service
from sd_operator.errors import InvalidResource
from sd_operator.reconcile.desired import desired
from sd_operator.settings import Settings
from sd_testkit.generators.random_specs import specs
from sd_testkit.kuberay.go_types import quantity as by_go
from sd_testkit.kuberay.go_types import ray_service_as_written

CASES = yaml.safe_load((Path(__file__).parents[2] / "data/kuberay-1.7.0-go-types.yaml").read_text())
ODD = {
    "env": [{"name": "TZ", "value": ""}],
    "podAnnotations": {},
    "sharedMemory": "1024Mi",
    "suspend": False,
    "replicas": {"min": 0, "max": 2},
    "head": {"resources": {"cpu": "0.5", "memory": "1.5Gi"}},
    "workerGroups": [
        {
            "name": "gpu",
            "tolerations": [{"key": "a", "operator": "Equal", "value": ""}],
            "nodeSelector": {"zone": ""},
            "affinity": {
                "nodeAffinity": {},
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [],
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 1,
                            "podAffinityTerm": {
                                "topologyKey": "zone",
                                "namespaces": [],
                                "labelSelector": {"matchLabels": {}, "matchExpressions": []},
                                "namespaceSelector": {},
                            },
                        }
                    ],
                },
            },
            "resources": {"cpu": "1000m", "memory": "2048Mi"},
        }
    ],
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_stand_in_writes_what_kuberays_types_write(case):
    before = copy.deepcopy(case["sent"])
    assert ray_service_as_written({"spec": case["sent"]}) == {"spec": case["written"]}
    assert case["sent"] == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_the_types_have_written_is_canonical(case):
    assert canonical(case["written"]) == case["written"]


@pytest.mark.parametrize(
    "spec", [ODD, {"model": {"preset": "sd15", "cache": {"size": "1024Gi"}}}], ids=["odd", "claim"]
)
def test_kuberay_changes_nothing_of_what_is_sent(resource, spec):
    sent = ray_service(resource(**spec), Settings())
    assert ray_service_as_written(sent) == sent
    loud = {**sent, "spec": {**sent["spec"], "suspend": False}}
    assert ray_service_as_written(loud) == sent


@settings(deadline=None)
@given(specs())
def test_kuberay_changes_nothing_of_any_ray_service(spec):
    metadata = {"name": "imagine", "namespace": "team", "uid": "uid-1", "generation": 1}
    kind = {"apiVersion": "sdservice.dev/v1alpha1", "kind": "StableDiffusionService"}
    try:
        parsed = parse({**kind, "metadata": metadata, "spec": spec})
    except InvalidResource:
        assume(False)
    for sent in desired(parsed, Settings()):
        assert canonical(sent) == sent
        if sent["kind"] == "RayService":
            assert ray_service_as_written(sent) == sent


def test_another_spelling_of_an_amount_asks_for_no_other_cluster(resource):
    """KubeRay sees no difference, so an annotation that differed would announce a cluster that never comes."""

    def built(cpu, memory):
        return ray_service(resource(head={"resources": {"cpu": cpu, "memory": memory}}), Settings())

    assert built("0.5", "1024Mi") == built("500m", "1Gi")
    assert built("0.5", "1024Mi") != built("600m", "1Gi")


@settings(deadline=None)
@given(st.from_regex(r"[1-9][0-9]{0,5}([.][0-9]{1,4})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", fullmatch=True))
def test_both_write_amounts_alike(text):
    assert quantity(text) == by_go(text) == quantity(quantity(text))
