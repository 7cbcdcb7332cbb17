# SPDX-License-Identifier: Apache-2.0
"""`sdservice validate`: runs the checks of the API server, and prints field, value and rule in one line per error."""

from typing import Annotated

import typer

from sd_operator.api import parse
from sd_operator.cli.documents import services
from sd_operator.cli.exits import FAILURE, INVALID, error_lines
from sd_operator.errors import InvalidResource, SdServiceError


def validate(
    files: Annotated[
        list[str], typer.Argument(help="YAML files; - reads standard input.", show_default=False)
    ],
) -> None:
    """Check StableDiffusionServices without a cluster. Exit code 3 if a service is invalid, 1 if a file cannot be read."""
    unreadable: list[SdServiceError] = []
    failures: list[InvalidResource] = []
    for path in files:
        try:
            documents = services(path)
        except InvalidResource as error:
            failures.append(error)
            continue
        except SdServiceError as error:
            unreadable.append(error)
            continue
        for document in documents:
            try:
                resource = parse(document.body)
            except InvalidResource as error:
                failures.append(InvalidResource(document.place, error.problems))
            else:
                typer.echo(f"{document.place}: {resource.name} is valid")
    for found in (*unreadable, *failures):
        for line in error_lines(found):
            typer.echo(line, err=True)
    if failures or unreadable:
        raise typer.Exit(INVALID if failures else FAILURE)
