# SPDX-License-Identifier: Apache-2.0
"""A running operator survives a KubeRay of another version or with a CRD that is too old.

Conditions report it, without a crash.
"""

import json

import pytest

from sd_testkit.playground import install_crds

CRD = "rayservices.ray.io"
VERSION = "ray.io/kuberay-version"


@pytest.fixture
def crds_come_back(control_plane):
    """KubeRay's CRDs as they were, whatever a test did to them."""
    yield lambda: install_crds(control_plane)
    install_crds(control_plane)


async def test_another_version_of_kuberay_is_followed(
    serving, operator, kubectl, namespace, get, eventually, condition, told
):
    """KubeRay writes its version onto the RayClusters that it manages, also onto one that an older one made."""
    await serving()
    cluster = get("sdservice")["status"]["activeRayCluster"]
    generation = get("rayservice")["metadata"]["generation"]

    def replaced_by(version):
        arguments = ("raycluster", cluster, "-n", namespace, "--overwrite", f"{VERSION}={version}")
        assert kubectl("annotate", *arguments).returncode == 0

    replaced_by("v1.6.2")
    await eventually(lambda: condition("Accepted") == ("False", "KubeRayTooOld"))
    assert "v1.6.2" in told("Accepted")[2]
    assert condition("Ready") == ("True", "Serving"), "what runs goes on"
    for version in ("v1.8.0", "v2.0.1"):
        replaced_by(version)
        await eventually(lambda: condition("Accepted") == ("True", "Accepted"))
        assert condition("Ready") == ("True", "Serving")
    assert get("sdservice")["status"]["activeRayCluster"] == cluster
    assert get("rayservice")["metadata"]["generation"] == generation


FIELD = "rayClusterDeletionDelaySeconds"
"""One that is always sent."""


async def test_a_crd_without_a_field_we_need_is_a_condition(
    operator, apply, service, kubectl, eventually, condition, told, crds_come_back
):
    found = json.loads(kubectl("get", "crd", CRD, "-o", "json").stdout)
    (version,) = (n for n, each in enumerate(found["spec"]["versions"]) if each["name"] == "v1")
    path = f"/spec/versions/{version}/schema/openAPIV3Schema/properties/spec/properties/{FIELD}"
    removed = kubectl("patch", "crd", CRD, "--type=json", "-p", json.dumps([{"op": "remove", "path": path}]))
    assert removed.returncode == 0, removed.stderr
    # A kind that was just changed is served as before for a moment; the edit comes after.
    await eventually(lambda: FIELD not in kubectl("explain", "rayservice.spec").stdout)
    apply(service())
    await eventually(lambda: condition("Accepted") == ("False", "KubeRayTooOld"))
    assert f"spec.{FIELD}" in told("Accepted")[2]
    crds_come_back()
    await eventually(lambda: condition("Ready") == ("True", "Serving"))


@pytest.fixture
def patient_operator(operator):
    """The operator with a resync so rare that what happens is not its doing; the usual one comes back afterwards."""
    operator.stop()
    operator.start(SDSERVICE_RESYNC_SECONDS="3600")
    yield operator
    operator.stop()
    operator.start()


async def test_kinds_that_go_and_come_back_are_a_condition_meanwhile(
    patient_operator, serving, get, kubectl, namespace, eventually, condition, crds_come_back
):
    """`helm uninstall` and a cleaning-up take the kinds, and with them every RayService, while the operator runs."""
    await serving()
    process = patient_operator.process().pid
    before = get("rayservice")["metadata"]["uid"]
    found = kubectl("get", "crd", "-o", "name").stdout.split()
    kinds = [name for name in found if name.endswith(".ray.io")]
    # Clusters first, as Helm does: KubeRay's finalizer keeps the RayService until no cluster of it is seen.
    assert kubectl("delete", "crd", "rayclusters.ray.io").returncode == 0
    assert kubectl("delete", *kinds, "--wait=false", "--ignore-not-found").returncode == 0

    await eventually(lambda: condition("Accepted") == ("False", "KubeRayMissing"), within=150)
    await eventually(lambda: not kubectl("get", *kinds, "--ignore-not-found").stdout, within=150)
    await eventually(lambda: condition("Ready") == ("False", "KubeRayMissing"), within=150)

    crds_come_back()
    await eventually(lambda: condition("Ready") == ("True", "Serving"), within=150)
    assert get("rayservice")["metadata"]["uid"] != before
    # Its events are heard again: neither resync nor the poll of dashboards tells of this.
    assert kubectl("delete", "rayservice", "imagine", "-n", namespace, "--wait=false").returncode == 0
    await eventually(lambda: condition("Ready")[0] == "False")
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    assert patient_operator.process().pid == process, "it was not started anew"
