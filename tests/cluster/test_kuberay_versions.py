# SPDX-License-Identifier: Apache-2.0
"""KubeRay that is too old, and is then made new, under a running operator."""

import json

import pytest

from sd_testkit.playground import install_crds

CRD = "rayservices.ray.io"


@pytest.fixture
def crds_come_back(control_plane):
    """KubeRay's CRDs as they were, whatever a test did to them."""
    yield lambda: install_crds(control_plane)
    install_crds(control_plane)


async def test_a_crd_without_a_field_we_need_is_a_condition(
    operator, apply, service, kubectl, get, eventually, condition, crds_come_back
):
    found = json.loads(kubectl("get", "crd", CRD, "-o", "json").stdout)
    (version,) = (n for n, each in enumerate(found["spec"]["versions"]) if each["name"] == "v1")
    path = f"/spec/versions/{version}/schema/openAPIV3Schema/properties/spec/properties/suspend"
    removed = kubectl("patch", "crd", CRD, "--type=json", "-p", json.dumps([{"op": "remove", "path": path}]))
    assert removed.returncode == 0, removed.stderr
    # A kind that was just changed is served as before for a moment; the edit comes after.
    await eventually(lambda: not kubectl("explain", "rayservice.spec").stdout.count("suspend"))
    apply(service())
    await eventually(lambda: condition("Accepted") == ("False", "KubeRayTooOld"))
    told = next(each for each in get("sdservice")["status"]["conditions"] if each["type"] == "Accepted")
    assert "spec.suspend" in told["message"]
    crds_come_back()
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
