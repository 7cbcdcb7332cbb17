# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_tools licences | outdated | version`. A `make` target calls each."""

from typing import Annotated

import typer

from sd_testkit.programs import ROOT
from sd_tools import outdated as releases
from sd_tools.licences import page
from sd_tools.versions import stamp

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def licences() -> None:
    """Write docs/licences.md."""
    (ROOT / "docs/licences.md").write_text(page())


@app.command()
def outdated() -> None:
    """List the dependencies that have a newer release than the pinned one."""
    for each in releases.outdated():
        print(f"{each.name}: {each.pinned} -> {each.newest}")


@app.command()
def version(number: Annotated[str, typer.Argument(help="Three numbers, such as 1.2.3.")]) -> None:
    """Write the version of a release into every file that contains it."""
    stamp(number)


if __name__ == "__main__":
    app()
