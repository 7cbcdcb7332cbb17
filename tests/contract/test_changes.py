# SPDX-License-Identifier: Apache-2.0
"""docs/changes.md is complete against the CRD, and each row matches the rendered objects.

Ray itself decides about restarts.
"""

import copy
import re

import pytest
import yaml
from ray.serve._private.config import DeploymentConfig
from ray.serve._private.version import DeploymentVersion
from ray.serve.config import AutoscalingConfig

from sd_operator.api.crd import custom_resource_definition
from sd_operator.builders.fingerprint import fingerprint
from sd_operator.builders.ray_service import ray_service
from sd_operator.builders.serve_config import serve_config
from sd_operator.reconcile.raycluster_patch import live_patch
from sd_operator.settings import Settings


@pytest.fixture(scope="module")
def table(root):
    """Class of each entry of the table."""
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", (root / "docs/changes.md").read_text(), re.MULTILINE)
    entries = [(entry, kind) for cell, kind in rows for entry in re.findall(r"`([^`]+)`", cell)]
    assert len(dict(entries)) == len(entries), "a field stands in the table twice"
    return dict(entries)


@pytest.fixture(scope="module")
def edits(root):
    return yaml.safe_load((root / "tests/data/changes.yaml").read_text())


def leaves(node, path=""):
    """Paths of all fields of a schema."""
    if node.get("properties"):
        for name, child in node["properties"].items():
            yield from leaves(child, f"{path}.{name}" if path else name)
    elif node.get("type") == "array" and node["items"].get("properties"):
        yield from leaves(node["items"], f"{path}[]")
    else:
        yield path


def covers(entry, field):
    return field == entry or field.startswith((f"{entry}.", f"{entry}["))


def test_every_field_of_the_crd_has_one_row_and_every_row_a_field(table):
    (version,) = custom_resource_definition()["spec"]["versions"]
    fields = list(leaves(version["schema"]["openAPIV3Schema"]["properties"]["spec"]))
    rows = {field: [entry for entry in table if covers(entry, field)] for field in fields}
    assert {field: found for field, found in rows.items() if len(found) != 1} == {}
    assert [entry for entry in table if not any(covers(entry, field) for field in fields)] == []


def test_every_row_is_tried(table, edits):
    assert sorted(edits) == sorted(table)


def version(deployment):
    """What Ray compares when a deployment is updated; it knows by name what restarts a replica."""
    known = {key: value for key, value in deployment.items() if key in DeploymentConfig.model_fields}
    if "autoscaling_config" in known:
        known["autoscaling_config"] = AutoscalingConfig(**known["autoscaling_config"])
    return DeploymentVersion("code", DeploymentConfig(**known), deployment["ray_actor_options"])


def restarted(before, after):
    """Deployments whose replicas Ray restarts between two Serve configs."""
    (old,), (new,) = before["applications"], after["applications"]
    pairs = list(zip(old["deployments"], new["deployments"], strict=True))
    if old["args"] != new["args"]:
        return [deployment["name"] for deployment, _ in pairs]
    return [
        first["name"] for first, second in pairs if version(first).requires_actor_restart(version(second))
    ]


def effect(before, after):
    old, new = (ray_service(each, Settings())["spec"] for each in (before, after))
    if old == new:
        return "operator"
    configs = [each.pop("rayClusterConfig") for each in (old, new)]
    if fingerprint(configs[0]) != fingerprint(configs[1]):
        return "new cluster"
    old, new = ({**each, "serveConfigV2": None} for each in (old, new))
    serve = [serve_config(each.spec) for each in (before, after)]
    effects = []
    if old != new:
        effects.append("KubeRay")
    if restarted(*serve):
        effects.append("replicas restart")
    elif serve[0] != serve[1]:
        effects.append("live")
    if live_patch(configs[1], {"metadata": {}, "spec": copy.deepcopy(configs[0])}):
        effects.append("patched")
    return ", ".join(effects)


def edited(resource, merge, edit):
    before, after = edit
    return resource(**before), resource(**merge(before, after))


@pytest.fixture
def merge():
    def join(base, patch):
        both = isinstance(base, dict) and isinstance(patch, dict)
        return (
            {**base, **{key: join(base.get(key), value) for key, value in patch.items()}} if both else patch
        )

    return join


def test_each_row_is_true(table, edits, resource, merge):
    found = {entry: effect(*edited(resource, merge, edits[entry])) for entry in table}
    assert found == table


def test_a_claim_that_is_not_mounted_yet_is_a_new_cluster(resource):
    pair = (resource(model={"preset": None, "uri": f"pvc://{claim}/m"}) for claim in ("a", "b"))
    assert effect(*pair) == "new cluster"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 0)])
def test_only_the_ingress_moves_between_zero_and_more(resource, low, high):
    before, after = (resource(replicas={"min": floor, "max": 3}) for floor in (low, high))
    assert restarted(serve_config(before.spec), serve_config(after.spec)) == ["ingress"]
    configs = [ray_service(each, Settings())["spec"]["rayClusterConfig"] for each in (before, after)]
    assert fingerprint(configs[0]) == fingerprint(configs[1])


def test_the_order_of_groups_is_a_new_cluster(resource):
    groups = [{"name": "a"}, {"name": "b"}]
    assert effect(resource(workerGroups=groups), resource(workerGroups=groups[::-1])) == "new cluster"
