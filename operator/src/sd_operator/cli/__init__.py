# SPDX-License-Identifier: Apache-2.0
"""The command line `sdservice`. The commands only parse arguments and print; other packages do the work."""

import sys

import typer

from sd_operator.cli import crd, render, run, self_test, validate, why
from sd_operator.cli.exits import FAILURE, INVALID, error_lines
from sd_operator.errors import InvalidResource, SdServiceError

app = typer.Typer(
    name="sdservice",
    help="Image generation on Kubernetes: validate, render, run and explain StableDiffusionServices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("validate")(validate.validate)
app.command("render")(render.render)
app.command("crd")(crd.crd)
app.command("run")(run.run)
app.command("why")(why.why)
app.command("self-test")(self_test.self_test)


def main() -> None:
    """Run a command. Exit codes: 0, 1 (failure), 2 (usage), 3 (invalid input) and 130 (interrupted)."""
    try:
        app()
    except SdServiceError as error:
        for line in error_lines(error):
            typer.echo(line, err=True)
        sys.exit(INVALID if isinstance(error, InvalidResource) else FAILURE)
