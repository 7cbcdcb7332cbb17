# SPDX-License-Identifier: Apache-2.0
"""`sdservice self-test`: does the operator act? What `helm test` runs, with the permission to do this and no more."""

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
        str, typer.Option("--namespace", "-n", help="A namespace that the operator serves.")
    ] = "default",
    timeout_seconds: Annotated[
        float, typer.Option(help="Seconds after which the operator is given up.")
    ] = 120.0,
) -> None:
    """Create a suspended service, wait until the operator has acted on it, and delete it.

    It starts no pod. Exit code 0 where the operator accepts the service, 1 where it is not heard of in time or says
    what it lacks, such as KubeRay.
    """
    typer.echo(asyncio.run(_run(namespace, timeout_seconds)))


async def _run(namespace: str, timeout_seconds: float) -> str:
    async with connect(_REQUEST_SECONDS) as cluster:
        created = await cluster.create(_suspended(namespace), _MANAGER)
        if created is None:
            raise SdServiceError("a service of the name of this test exists already; try again")
        try:
            return await judged(cluster, created, timeout_seconds)
        finally:
            await cluster.delete(SERVICE, created)


async def judged(
    cluster: Cluster, created: Json, timeout_seconds: float, poll_seconds: float = _POLL_SECONDS
) -> str:
    """What the operator said of a service, once it said that it takes it.

    Args:
        cluster: where it is.
        created: the service.
        timeout_seconds: how long to wait for the operator.
        poll_seconds: pause between two looks.

    Raises:
        SdServiceError: it said nothing in time, or that it cannot act.
    """
    metadata = created["metadata"]
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        live = await cluster.get(SERVICE, metadata["namespace"], metadata["name"]) or {}
        told = live.get("status") or {}
        if told.get("observedGeneration") == metadata["generation"]:
            accepted = next(each for each in told["conditions"] if each["type"] == "Accepted")
            if accepted["status"] != "True":
                raise SdServiceError(f"the operator cannot act: {accepted['reason']}: {accepted['message']}")
            return f"the operator acts on services of namespace {metadata['namespace']}"
        await asyncio.sleep(poll_seconds)
    raise SdServiceError(
        f"the operator has not acted on a service of namespace {metadata['namespace']} within {timeout_seconds:.0f} s:"
        " does it run, and does it serve this namespace? Its logs say more"
    )


def _suspended(namespace: str) -> Json:
    """The smallest service: suspended, so that it starts nothing, and without pods for images."""
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
