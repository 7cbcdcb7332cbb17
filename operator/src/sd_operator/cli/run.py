# SPDX-License-Identifier: Apache-2.0
"""`sdservice run`: runs the service on this machine, without a cluster. A GPU is not required."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sd_operator.api import Resource, parse
from sd_operator.cli.documents import services
from sd_operator.errors import LocalRunFailed, RayUnavailable
from sd_operator.local import serving
from sd_operator.ray import dashboard

_OK = 200
_INTERRUPTED = 130


class Phases:
    """Shows the phases of the start: a spinner with elapsed seconds in a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._current = ""
        self._began = 0.0
        self._progress: Progress | None = None
        if sys.stderr.isatty():
            columns = (
                SpinnerColumn(finished_text="✓"),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._progress.start()

    def begin(self, name: str) -> None:
        """End the previous phase, and show the new one."""
        self._finish()
        self._current, self._began = name, time.monotonic()
        if self._progress is None:
            typer.echo(f"{name} ...", err=True)
        else:
            self._progress.add_task(name, total=1)

    def close(self) -> None:
        """End the last phase and restore the terminal."""
        self._finish()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _finish(self) -> None:
        if not self._current:
            return
        self.seconds[self._current] = time.monotonic() - self._began
        if self._progress is None:
            typer.echo(f"{self._current}: {self.seconds[self._current]:.1f} s", err=True)
        else:
            self._progress.update(self._progress.task_ids[-1], completed=1)
        self._current = ""


def run(  # noqa: PLR0917 - typer's parameters are the command line
    file: Annotated[str, typer.Argument(help="YAML file; - reads standard input.", show_default=False)],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
    once: Annotated[str | None, typer.Option(metavar="PROMPT", help="Generate one picture and exit.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the picture of --once.")] = Path(
        "out.png"
    ),
    seed: Annotated[int | None, typer.Option(min=0, help="Seed for the picture of --once.")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="On a failure, also print details such as logs.")
    ] = False,
) -> None:
    """Run the first StableDiffusionService of FILE on this machine until Ctrl-C."""
    resource = parse(services(file)[0].body)
    work = _once(resource, port, once, output, seed) if once is not None else _serve(resource, port)
    try:
        serving.run(work)
    except asyncio.CancelledError:
        raise typer.Exit(_INTERRUPTED) from None
    except LocalRunFailed as error:
        if verbose and error.details:
            typer.echo(error.details, err=True)
        raise


@asynccontextmanager
async def _running(resource: Resource, port: int) -> AsyncIterator[tuple[serving.LocalService, Phases]]:
    phases = Phases()
    try:
        async with serving.serve(resource, port, phases.begin) as service:
            yield service, phases
            phases.begin("stop")
    finally:
        phases.close()


async def _serve(resource: Resource, port: int) -> None:
    async with _running(resource, port) as (service, phases):
        phases.close()
        example = urlencode({"prompt": "a red circle"})
        typer.echo(f"{resource.name} is ready on {service.readiness.get('device', 'an unknown device')}")
        typer.echo(f"  URL       {service.url}")
        typer.echo(f"  picture   curl -o out.png '{service.url}/imagine?{example}'")
        typer.echo(f"  API docs  {service.url}/docs")
        typer.echo("Press Ctrl-C to stop the service.")
        await service.watch()


async def _once(resource: Resource, port: int, prompt: str, output: Path, seed: int | None) -> None:
    async with _running(resource, port) as (service, phases):
        phases.begin("generate")
        query = {"prompt": prompt} | ({} if seed is None else {"seed": str(seed)})
        timeout = resource.spec.limits.timeout_seconds + 10
        try:
            code, body = await dashboard.get_bytes(f"{service.url}/imagine", query, timeout)
        except RayUnavailable as error:
            raise LocalRunFailed(str(error)) from error
        if code != _OK:
            raise LocalRunFailed(
                f"the service answered with status {code}: {_message(body)}", body.decode(errors="replace")
            )
    _write(output, body)
    typer.echo(f"{output}: {len(body)} bytes")


def _write(output: Path, body: bytes) -> None:
    try:
        output.write_bytes(body)
    except OSError as error:
        raise LocalRunFailed(f"cannot write {output}: {error.strerror}") from error


def _message(body: bytes) -> str:
    return " ".join(body.decode(errors="replace").split())[:300]
