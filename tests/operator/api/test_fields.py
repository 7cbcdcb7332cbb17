# SPDX-License-Identifier: Apache-2.0
"""Every field of the schema has a second valid value, and the history of a spec leaves no trace."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sd_operator.api import parse
from sd_operator.api.crd import custom_resource_definition
from sd_operator.errors import InvalidResource
from sd_operator.reconcile.desired import desired
from sd_operator.settings import Settings
from sd_testkit.generators.fields import NoSample, changes, leaves, value_at, with_value
from sd_testkit.generators.merging import merged

BASE, ITEMS, SAMPLES, TIMES = yaml.safe_load(
    (Path(__file__).parents[2] / "data/fields.yaml").read_text()
).values()
VERSION = custom_resource_definition()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]
CHANGES = [each for each in changes(SCHEMA, BASE, ITEMS, SAMPLES) if each.path not in TIMES]


def resource(spec):
    identity = {"name": "imagine", "namespace": "team", "uid": "uid-1", "generation": 1}
    kind = {"apiVersion": "sdservice.dev/v1alpha1", "kind": "StableDiffusionService"}
    return parse({**kind, "metadata": identity, "spec": spec})


def children(spec):
    return desired(resource(spec), Settings(node_cache_directory="/mnt/weights"))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.path)
def test_field_changes_a_child_or_admits_another_value(change):
    if change.admits:
        with pytest.raises(InvalidResource):
            resource(merged(change.before, change.admits))
        resource(merged(change.after, change.admits))
    else:
        assert children(change.before) != children(change.after)


def test_field_without_effect_or_sample_is_told_by_its_path():
    """What the tests above stand on: a field that nobody reads, and one that nobody knows a value for."""
    odd = {"type": "object", "properties": {"odd": {"type": "string"}}}
    with pytest.raises(NoSample, match=r"^a\.odd: "):
        changes({"type": "object", "properties": {"a": odd}}, BASE, {}, {})


def test_no_sample_is_left_over():
    paths = [leaf.path for leaf in leaves(SCHEMA)]
    unused = [key for key in SAMPLES if not any(path.endswith(key.removeprefix("*")) for path in paths)]
    unused += [key for key in ITEMS if not any(key.removeprefix("*") in path for path in paths)]
    assert unused == []


@settings(deadline=None)
@given(st.lists(st.sampled_from(CHANGES), max_size=6), st.randoms())
def test_children_do_not_depend_on_the_way_to_the_spec(edits, random):
    """Edits there and back, with children computed at each: the last ones are those of the last spec alone."""
    spec = BASE
    for edit in edits:
        steps = [edit.after, edit.before, with_value(spec, edit.path, value_at(edit.after, edit.path))]
        for step in random.sample(steps, len(steps)):
            try:
                children(step)
            except InvalidResource:
                continue  # this edit does not go with those before it
            spec = step
    direct = children(copy.deepcopy(spec))
    assert children(spec) == direct
    assert children(BASE) == children(copy.deepcopy(BASE))
