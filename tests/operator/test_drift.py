# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.drift import differs

WANTED = {"kind": "X", "spec": {"a": 1, "list": [{"name": "n", "v": 1}]}}


def live(spec, owned=None, manager="us", **entry):
    entries = [{"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": owned or {}}, **entry}]
    return {"kind": "X", "metadata": {"managedFields": entries}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "differ"),
    [
        ({"a": 1, "list": [{"name": "n", "v": 1}]}, False),
        ({"a": 1, "list": [{"name": "n", "v": 1, "defaulted": True}], "other": 2}, False),
        ({"a": 2, "list": [{"name": "n", "v": 1}]}, True),
        ({"list": [{"name": "n", "v": 1}]}, True),
        ({"a": 1, "list": []}, True),
        ({"a": 1, "list": [{"name": "n", "v": 1}, {"name": "m", "v": 1}]}, True),
        ({"a": 1, "list": {"name": "n"}}, True),
        ({"a": True, "list": [{"name": "n", "v": 1}]}, False),
    ],
)
def test_values(spec, differ):
    assert differs(WANTED, live(spec), "us") is differ


@pytest.mark.parametrize(
    ("owned", "differ"),
    [
        ({"f:a": {}, "f:list": {}}, False),
        ({"f:a": {}, "f:dropped": {}}, True),
        ({"f:list": {'k:{"name":"n"}': {".": {}, "f:name": {}, "f:v": {}}}}, False),
        ({"f:list": {'k:{"name":"gone"}': {".": {}, "f:name": {}}}}, True),
        ({"f:list": {'k:{"name":"n"}': {"f:dropped": {}}}}, True),
        ({"f:list": {'k:{"name":"n","protocol":"TCP"}': {"f:v": {}}}}, False),
        ({"f:list": {"i:0": {}}}, False),
        ({"f:list": {"i:1": {}}}, True),
        ({"f:a": {"f:deeper": {}}}, True),
    ],
)
def test_fields_we_applied_and_no_longer_want(owned, differ):
    spec = {"a": 1, "list": [{"name": "n", "v": 1}], "dropped": 1}
    assert differs(WANTED, live(spec, owned), "us") is differ


def test_fields_of_others_are_theirs():
    spec = WANTED["spec"] | {"theirs": 1}
    assert not differs(WANTED, live(spec, {"f:theirs": {}}, manager="them"), "us")
    assert not differs(WANTED, live(spec, {"f:theirs": {}}, operation="Update"), "us")
    assert not differs(WANTED, live(spec, {"f:theirs": {}}, subresource="status"), "us")
