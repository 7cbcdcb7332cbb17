# SPDX-License-Identifier: Apache-2.0
"""Every value has a default, an example, an effect, and a bound."""

import pytest
import yaml

from sd_testkit.chart import CHART, Values, helm, template
from sd_testkit.generators.merging import merged


def leaves(node, path=()):
    """Paths of all values, models taken apart and lists and maps of the user's left whole."""
    for name, field in node.model_fields.items():
        here = (*path, field.alias or name)
        if hasattr(field.annotation, "model_fields"):
            yield from leaves(field.annotation, here)
        else:
            yield here


PATHS = [*leaves(Values)]


def at(values, path):
    for name in path:
        values = values[name]
    return values


def alone(path, value):
    return {path[0]: alone(path[1:], value) if path[1:] else value}


@pytest.fixture(scope="module")
def defaults():
    return yaml.safe_load((CHART / "values.yaml").read_text())


def test_defaults_are_valid(defaults):
    assert Values.model_validate(defaults) == Values()


def test_examples_are_valid(examples):
    Values.model_validate(examples["values"])


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_value_has_an_example_and_an_effect(path, defaults, examples):
    example, name = at(examples["values"], path), ".".join(path)
    if name in examples["without_effect"]:
        return
    assert example != at(defaults, path)
    needed = examples["with"].get(name, {})
    change = alone(path, example)
    assert template(merged(needed, change)) != template(needed)


def test_nothing_else_is_in_the_examples(examples):
    assert {".".join(path) for path in PATHS} >= {*examples["with"], *examples["without_effect"]}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"replicas": 3}, "/replicas"),
        ({"replicas": "1"}, "/replicas"),
        ({"reconciling": {"workers": 0}}, "/reconciling/workers"),
        ({"watchNamespaces": ["Team"]}, "/watchNamespaces/0"),
        ({"watchNamespaces": ["a"], "watchOwnNamespace": True}, "cannot both be set"),
        ({"replicas": 2, "leaderElection": False}, "needs replicas: 1"),
    ],
    ids=str,
)
def test_wrong_value_is_refused_with_its_path(values, says):
    with pytest.raises(RuntimeError, match=says):
        template(values)


def test_lint_finds_nothing(everything):
    for values in ({}, everything):
        helm("lint", "--strict", CHART, "--values", "-", stdin=yaml.safe_dump(values))
