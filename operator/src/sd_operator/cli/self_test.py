# SPDX-License-Identifier: Apache-2.0
"""`sdservice self-test`: checks that the operator acts on a service. `helm test` runs it with minimal permissions."""

import asyncio
import secrets
import time
from typing import Annotated

import typer

from sd_operator.api import KIND
from sd_operator.api.resource import API_VERSION
from sd_operator.errors import SdServiceError
from sd_operator.json_types import Json
from sd_operator.kube import SERVICE, Cluster, connect

_MANAGER = "sdservice-self-test"
_REQUEST_SECONDS = 10.0
_POLL_SECONDS = 1.0


def self_test(
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="A namespace that the operator watches.")
    ] = "default",
    timeout_seconds: Annotated[float, typer.Option(help="Seconds to wait for the operator.")] = 120.0,
) -> None:
    """Create a suspended service, wait until the operator accepts it, and delete it.

    The test starts no pod. Exit code 0: the operator accepts the service. Exit code 1: the operator does not answer in
    time, or reports what is missing, such as KubeRay.
    """
    typer.echo(asyncio.run(_run(namespace, timeout_seconds)))


async def _run(namespace: str, timeout_seconds: float) -> str:
    async with connect(_REQUEST_SECONDS) as cluster:
        created = await cluster.create(_suspended(namespace), _MANAGER)
        if created is None:
            raise SdServiceError("a service with the name of this test already exists: run the test again")
        try:
            return await judged(cluster, created, timeout_seconds)
        finally:
            await cluster.delete(SERVICE, created)


async def judged(
    cluster: Cluster, created: Json, timeout_seconds: float, poll_seconds: float = _POLL_SECONDS
) -> str:
    """Wait until the operator accepts the service, and return a message for the user.

    Args:
        cluster: the cluster of the service.
        created: the service.
        timeout_seconds: how long to wait for the operator.
        poll_seconds: seconds between two polls.

    Raises:
        SdServiceError: the operator did not answer in time, or it does not accept the service.
    """
    metadata = created["metadata"]
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        live = await cluster.get(SERVICE, metadata["namespace"], metadata["name"]) or {}
        reported = live.get("status") or {}
        conditions = {each["type"]: each for each in reported.get("conditions") or []}
        if reported.get("observedGeneration") == metadata["generation"] and "Accepted" in conditions:
            accepted = conditions["Accepted"]
            if accepted["status"] != "True":
                raise SdServiceError(
                    f"the operator does not accept the test service: {accepted['reason']}: {accepted['message']}"
                )
            return f"the operator acts on services in namespace {metadata['namespace']}"
        await asyncio.sleep(poll_seconds)
    raise SdServiceError(
        f"the operator has not acted on a service in namespace {metadata['namespace']} within {timeout_seconds:.0f} s:"
        " check that its pod runs, that it watches this namespace, and its logs"
    )


def _suspended(namespace: str) -> Json:
    """A minimal service: suspended, so that no pod starts, and without preload pods."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": f"self-test-{secrets.token_hex(4)}", "namespace": namespace},
        "spec": {
            "model": {"preset": "shapes"},
            "replicas": {"max": 1},
            "gpusPerReplica": 0,
            "imagePreload": {"mode": "Disabled"},
            "suspend": True,
        },
    }
