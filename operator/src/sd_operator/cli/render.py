# SPDX-License-Identifier: Apache-2.0
"""`sdservice render`: prints the objects that the operator would create, as YAML to read, diff or apply by hand."""

from typing import Annotated, Any

import typer
import yaml

from sd_operator.api import Resource, parse
from sd_operator.builders.token_secret import token_secret
from sd_operator.cli.documents import services
from sd_operator.reconcile.desired import desired
from sd_operator.settings import Settings


class _Dumper(yaml.SafeDumper):
    """A YAML dumper for people: multi-line strings as blocks, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)


def render(
    file: Annotated[str, typer.Argument(help="YAML file; - reads standard input.", show_default=False)],
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Namespace for services without metadata.namespace."),
    ] = None,
) -> None:
    """Print the RayService and all other objects that the operator creates for each StableDiffusionService.

    The token Secret is printed without data. To apply the objects without the operator, set its key auth_token.
    """
    for document in services(file, namespace):
        typer.echo(as_yaml(objects(parse(document.body), Settings())), nl=False)


def objects(resource: Resource, settings: Settings) -> list[dict[str, Any]]:
    """All objects of a resource, in the order in which they are applied."""
    return [token_secret(resource, token=None), *desired(resource, settings)]


def as_yaml(bodies: list[dict[str, Any]]) -> str:
    """YAML documents, each after a separator."""
    return "".join("---\n" + yaml.dump(body, Dumper=_Dumper, sort_keys=False, width=110) for body in bodies)
