# SPDX-License-Identifier: Apache-2.0
"""The truth meter: measure how often `Ready` agrees with the result of a request, for ours and for KubeRay's.

    .venv/bin/python benchmarks/truth.py [--scenario NAME ...] [--output FILE]

The meter plays the scenarios. Once a second it reads both `Ready` conditions and requests a picture through the Service.
After each change of the result, `Ready` has five seconds to follow. A request counts as served when a picture arrives
within five seconds, or, at zero replicas, at any time. Without KUBECONFIG the meter runs on the real control plane, with
the stand-in for KubeRay and the operator of this checkout. With KUBECONFIG it runs on a cluster that has KubeRay and the
operator. It prints a table: the seconds, and in how many of them ours and KubeRay's were wrong.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_testkit.cluster.control_plane import ControlPlane, GivenCluster
from sd_testkit.kuberay import KubeRay
from sd_testkit.operator_process import OperatorProcess
from sd_testkit.playground import install_crds
from sd_testkit.scenarios import SCENARIOS, Scenario, User
from sd_testkit.truth.meter import Verdict
from sd_testkit.truth.report import play, row, seconds_of, table

EXAMPLE = Path(__file__).parent.parent / "examples/cpu.yaml"
NAMESPACE = "truth-meter"
READING_SECONDS = 15.0


async def measure(scenarios: list[Scenario], patience: float) -> list[tuple[str, Verdict]]:
    """Play and judge each scenario."""
    verdicts = []
    async with cluster() as (control_plane, api):
        control_plane.kubectl("create", "namespace", NAMESPACE)
        user = User(api, NAMESPACE, yaml.safe_load(EXAMPLE.read_text()), patience, READING_SECONDS)
        try:
            await user.apply()
            await user.until_condition("Ready", "True")
            for scenario in scenarios:
                played = await play(scenario, user)
                verdicts.append((scenario.name, played.verdict))
                print(row(*verdicts[-1]), flush=True)
                print(seconds_of(played.samples), flush=True)
                if played.failure:
                    print(f"{scenario.name}: {played.failure.splitlines()[0]}", flush=True)
        finally:
            control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    return verdicts


@asynccontextmanager
async def cluster() -> AsyncIterator[tuple[ControlPlane, ApiClient]]:
    """Use the cluster of KUBECONFIG, or start a control plane with all that is needed."""
    with tempfile.TemporaryDirectory() as folder:
        if "KUBECONFIG" in os.environ:
            async with client(GivenCluster()) as api:
                yield GivenCluster(), api
            return
        control_plane = ControlPlane(Path(folder) / "control-plane")
        operator = OperatorProcess(control_plane, Path(folder))
        try:
            control_plane.start()
            install_crds(control_plane)
            operator.start()
            async with client(control_plane) as api, client(control_plane) as theirs:
                kuberay = asyncio.create_task(KubeRay(theirs, control_plane.pod_network).run())
                yield control_plane, api
                kuberay.cancel()
                await asyncio.gather(kuberay, return_exceptions=True)
        finally:
            operator.stop()
            control_plane.stop()


@asynccontextmanager
async def client(control_plane: ControlPlane) -> AsyncIterator[ApiClient]:
    """Return a client with its own connection pool, so that pending requests do not delay others."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = 256
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        yield api


def main() -> None:
    """Measure, print, and write the table to the output file, if one is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", action="append", choices=[each.name for each in SCENARIOS])
    parser.add_argument("--patience", type=float, default=180, help="seconds until a scenario is given up")
    parser.add_argument("--output", type=Path, help="file for the table")
    arguments = parser.parse_args()
    chosen = [each for each in SCENARIOS if arguments.scenario is None or each.name in arguments.scenario]
    text = table(asyncio.run(measure(chosen, arguments.patience)))
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
