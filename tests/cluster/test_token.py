# SPDX-License-Identifier: Apache-2.0
"""Ray's token is generated once. If a user deletes it, the next cluster gets a new one."""


async def test_a_deleted_token_is_drawn_anew_for_the_next_cluster(
    serving, apply, service, kubectl, namespace, get, eventually, condition
):
    await serving()
    token, cluster = get("secret", "imagine-ray-token"), get("sdservice")["status"]["activeRayCluster"]
    apply(service(spec={"limits": {"maxSteps": 50}}))
    await eventually(lambda: condition("ConfigApplied") == ("True", "ApplicationRunning"))
    assert get("secret", "imagine-ray-token")["data"] == token["data"]

    kubectl("delete", "secret", "imagine-ray-token", "-n", namespace)
    apply(service(spec={"podAnnotations": {"token": "2"}}))
    await eventually(lambda: get("sdservice")["status"]["activeRayCluster"] != cluster)
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    renewed = get("secret", "imagine-ray-token")
    assert renewed["data"] != token["data"]
    assert renewed["metadata"]["ownerReferences"] == token["metadata"]["ownerReferences"]
