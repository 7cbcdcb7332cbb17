# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_testkit build | program | packages | node | chart | images | up | down | kuberay`."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_testkit import checkov, playground, programs
from sd_testkit.chart import CHART
from sd_testkit.chart.files import values_schema, values_yaml
from sd_testkit.images import IMAGES, Store, store
from sd_testkit.images import build as build_image
from sd_testkit.images import obstacle as image_obstacle
from sd_testkit.kuberay import KubeRay
from sd_testkit.node import host

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def build(
    node: Annotated[bool, typer.Option("--node", help="Also build the programs of a real node.")] = False,
) -> None:
    """Build every program of the tests into the cache."""
    for program in (*programs.PROGRAMS, *(programs.NODE_PROGRAMS if node else ())):
        began = time.monotonic()
        programs.ensure(program.name)
        print(f"{program.name} {program.version}: {time.monotonic() - began:.1f} s")
    checkov.ensure()


@app.command()
def program(name: Annotated[str, typer.Argument(help="Name of the program, such as helm.")]) -> None:
    """Build one program into the cache, and print its path."""
    print(programs.ensure(name))


@app.command()
def packages() -> None:
    """Print the Debian packages that a real node and image builds need."""
    print(*host.PACKAGES, *store.PACKAGES)


@app.command()
def node(
    outcome: Annotated[str, typer.Argument(help="Outcome of the run, if the node was tried.")] = "",
    *,
    obstacle: Annotated[
        bool,
        typer.Option(
            "--obstacle",
            help="Print only the reason why this host cannot run a real node. Print nothing if it can.",
        ),
    ] = False,
) -> None:
    """Print in one line whether this run tried the real node, and the reason if not."""
    if obstacle:
        print(host.obstacle(), end="")
        return
    if outcome:
        print(f"real node: tried, {outcome}")
        return
    why = host.obstacle() or "this run was not asked for it; this host can run it: make node"
    print(f"real node: not tried, since {why}")


@app.command()
def chart() -> None:
    """Write `values.yaml` and `values.schema.json` of the Helm chart."""
    (CHART / "values.yaml").write_text(values_yaml())
    (CHART / "values.schema.json").write_text(values_schema())


@app.command()
def up() -> None:
    """Start a control plane with the CRDs, the operator and the stand-in for KubeRay."""
    print(playground.up())


@app.command()
def down() -> None:
    """Stop everything that `up` started."""
    playground.down()


@app.command()
def images(
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the images and the data from which they were built.")
    ] = False,
) -> None:
    """Build the images, and print the size of their layers."""
    store = Store(programs.cache() / "images")
    if remove:
        store.remove()
        return
    if found := image_obstacle():
        raise SystemExit(found)
    for image in IMAGES:
        began = time.monotonic()
        reference = build_image(store, image)
        megabytes = [round(layer.size / 1e6, 1) for layer in store.layers(reference)]
        print(
            f"{reference}: {time.monotonic() - began:.0f} s, {sum(megabytes):.0f} MB, by layers {megabytes}"
        )


@app.command()
def kuberay(
    pod_network: Annotated[Path, typer.Argument(help="Socket through which the API server dials pods.")],
) -> None:
    """Run the stand-in for KubeRay, with simulated Ray pods, against the cluster that KUBECONFIG names."""
    asyncio.run(_kuberay(pod_network))


async def _kuberay(pod_network: Path) -> None:
    configuration = Configuration()
    await config.load_kube_config(client_configuration=configuration)
    async with ApiClient(configuration) as api:
        await KubeRay(api, pod_network).run()


if __name__ == "__main__":
    app()
