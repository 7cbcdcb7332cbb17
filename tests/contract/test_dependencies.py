# SPDX-License-Identifier: Apache-2.0
"""The constraints of a distribution install every package that it imports. The development environment has more."""

import ast
import re
import sys
from importlib.metadata import packages_distributions

import pytest


def imported(folder):
    """Top-level names of absolute imports in all files below the folder."""
    names = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize(
    ("folder", "package"), [("operator", "sd_operator"), ("serve_runtime", "sd_runtime")], ids=str
)
def test_every_import_is_among_the_constraints(root, folder, package):
    text = (root / folder / "constraints.txt").read_text()
    constrained = set(re.findall(r"^([a-z0-9-]+)==", text, flags=re.MULTILINE))
    providers = packages_distributions()
    wanted = imported(root / folder / "src" / package) - sys.stdlib_module_names - {package}
    missing = {
        name
        for name in wanted
        if not {each.lower().replace("_", "-") for each in providers.get(name, [])} & constrained
    }
    assert missing == set()
