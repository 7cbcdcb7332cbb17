# SPDX-License-Identifier: Apache-2.0
"""The rights that the chart grants are exactly those that the operator uses.

Every test of this folder runs the operator as the chart's ServiceAccount. None of its requests may be refused until the end
(`operator` in conftest.py), so a missing right fails there. The test below makes the operator use all its functions. It
compares the permitted requests in the API server's audit log with the rights of the Roles, so an unused right fails here.
Both sets are equal: each right was used, and without any one of them a request would be refused.
"""

import json

import pytest

from sd_testkit.chart import rendered, role_rules
from sd_testkit.cluster.audit import asked, granted

STEPS = {"strategy": "Incremental", "incremental": {"gatewayClassName": "steps"}}


@pytest.fixture
def used(control_plane, account):
    if not control_plane.audit_log.exists():
        pytest.skip("KUBECONFIG names a cluster whose audit log is not ours")
    return lambda: asked(control_plane.audit_log, account.user).allowed


async def test_what_is_granted_is_what_is_used(
    serving, apply, service, kubectl, namespace, preloads, eventually, condition, get, chart_values, used
):
    (priority,) = (body for body in rendered() if body["kind"] == "PriorityClass")
    kubectl("apply", "-f", "-", stdin=json.dumps(priority))
    both = [{"name": each, "nodeSelector": {"kubernetes.io/hostname": each}} for each in ("gpu-0", "gpu-1")]
    await serving(workerGroups=both, imagePreload={"warmNodes": 1}, upgrade=STEPS)
    # Bounds of a running RayCluster are patched; what is not wanted any more is deleted.
    apply(service(spec={"workerGroups": both, "upgrade": STEPS, "replicas": {"min": 1, "max": 2}}))
    await eventually(lambda: get("deployment", "imagine-warm") is None)
    off = {"imagePreload": {"mode": "Disabled"}, "networkPolicy": {"enabled": False}}
    apply(service(spec={"workerGroups": both[:1], "upgrade": STEPS, **off}))
    await eventually(lambda: preloads() == [])
    await eventually(lambda: get("networkpolicy", "imagine-pods") is None)
    # Only Events tell why pods are not made.
    kubectl("create", "quota", "none", "--hard=pods=0", "-n", namespace)
    apply(service(metadata={"name": "other"}))
    await eventually(lambda: condition("Ready", "other") == ("False", "QuotaExceeded"))
    # A RayCluster that a further edit replaces before it ever served is deleted by the operator.
    apply(service(metadata={"name": "other"}, spec={"env": [{"name": "OTEL_SERVICE_NAME", "value": "x"}]}))

    wanted = granted(role_rules(rendered(chart_values)))
    try:
        await eventually(lambda: used() == wanted, within=60)
    finally:
        found = used()
        assert (found - wanted, wanted - found) == (set(), set()), "used but not granted; granted in vain"
