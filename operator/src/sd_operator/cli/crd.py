# SPDX-License-Identifier: Apache-2.0
"""`sdservice crd`: the CustomResourceDefinition of this release."""

import typer

from sd_operator.api.crd import custom_resource_definition
from sd_operator.cli.render import as_yaml


def crd() -> None:
    """Print the CustomResourceDefinition. To install it: `sdservice crd | kubectl apply --server-side -f -`."""
    typer.echo("# Generated from sd_operator.api by `make generate`; edits are lost.")
    typer.echo(as_yaml([custom_resource_definition()]), nl=False)
