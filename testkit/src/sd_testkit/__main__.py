# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_testkit build | chart | up | down | kuberay`."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_testkit import playground, programs
from sd_testkit.chart import CHART
from sd_testkit.chart.files import values_schema, values_yaml
from sd_testkit.kuberay import KubeRay

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def build(
    node: Annotated[bool, typer.Option("--node", help="And those of a real node.")] = False,
) -> None:
    """Build every program of the control plane into the cache."""
    for program in (*programs.PROGRAMS, *(programs.NODE_PROGRAMS if node else ())):
        began = time.monotonic()
        programs.ensure(program.name)
        print(f"{program.name} {program.version}: {time.monotonic() - began:.1f} s")


@app.command()
def chart() -> None:
    """Write values.yaml and values.schema.json of the Helm chart."""
    (CHART / "values.yaml").write_text(values_yaml())
    (CHART / "values.schema.json").write_text(values_schema())


@app.command()
def up() -> None:
    """Start a control plane with CRDs, operator and stand-in for KubeRay."""
    print(playground.up())


@app.command()
def down() -> None:
    """End it."""
    playground.down()


@app.command()
def kuberay(
    pod_network: Annotated[Path, typer.Argument(help="Socket through which the API server dials pods.")],
) -> None:
    """Run the stand-in for KubeRay, and the Ray in its pods, on the cluster that KUBECONFIG names."""
    asyncio.run(_kuberay(pod_network))


async def _kuberay(pod_network: Path) -> None:
    configuration = Configuration()
    await config.load_kube_config(client_configuration=configuration)
    async with ApiClient(configuration) as api:
        await KubeRay(api, pod_network).run()


if __name__ == "__main__":
    app()
