# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.kube.drift import needs_apply

WANTED = {
    "kind": "X",
    "metadata": {"name": "x", "labels": {"a": "b"}},
    "spec": {"a": 1, "atomic": [{"v": 1}], "merged": [{"name": "n", "v": 1}], "set": ["s"]},
}
LABELS = {"f:labels": {".": {}, "f:a": {}}}
ITEM = {".": {}, "f:name": {}, "f:v": {}}
OWNED = {"f:a": {}, "f:atomic": {}, "f:merged": {'k:{"name":"n"}': ITEM}, "f:set": {'v:"s"': {}}}
SPEC = WANTED["spec"]


def live(spec=SPEC, owned=OWNED, labels=None, manager="us", **entry):
    fields = {"f:metadata": LABELS, "f:spec": owned}
    entries = [{"manager": manager, "operation": "Apply", "fieldsV1": fields, **entry}]
    metadata = {
        "name": "x",
        "uid": "1",
        "managedFields": entries,
        "labels": labels or {"a": "b", "theirs": "c"},
    }
    return {"kind": "X", "metadata": metadata, "spec": spec, "status": {"ready": 1}}


def test_what_was_applied_does_not_differ():
    assert not needs_apply(WANTED, live(), "us")


@pytest.mark.parametrize(
    "spec",
    [
        SPEC | {"theirs": 2},
        SPEC | {"merged": [{"name": "m"}, {"name": "n", "v": 1, "defaulted": True}]},
        SPEC | {"set": ["t", "s"]},
    ],
    ids=["field", "item and default", "value"],
)
def test_what_others_add_is_theirs(spec):
    assert not needs_apply(WANTED, live(spec), "us")


@pytest.mark.parametrize(
    "spec",
    [
        SPEC | {"a": 2},
        {key: value for key, value in SPEC.items() if key != "a"},
        SPEC | {"atomic": [{"v": 1, "left": "over"}]},
        SPEC | {"atomic": []},
        SPEC | {"merged": [{"name": "n", "v": 2}]},
        SPEC | {"merged": []},
        SPEC | {"merged": {"name": "n"}},
        SPEC | {"set": []},
    ],
    ids=[
        "value",
        "gone",
        "more in an atomic list",
        "empty list",
        "item",
        "item gone",
        "other type",
        "value gone",
    ],
)
def test_what_is_ours_and_changed_differs(spec):
    assert needs_apply(WANTED, live(spec), "us")


@pytest.mark.parametrize(
    "owned",
    [
        OWNED | {"f:dropped": {}},
        OWNED | {"f:merged": {'k:{"name":"n"}': ITEM | {"f:dropped": {}}}},
        OWNED | {"f:merged": {'k:{"name":"n"}': ITEM, 'k:{"name":"dropped"}': ITEM}},
        OWNED | {"f:set": {'v:"s"': {}, 'v:"dropped"': {}}},
        OWNED | {"f:set": {"i:0": {}, "i:1": {}}},
    ],
    ids=["field", "field of an item", "item", "value", "index"],
)
def test_what_we_own_and_no_longer_want_differs(owned):
    merged = [{"name": "n", "v": 1, "dropped": 1}, {"name": "dropped", "v": 1}]
    assert needs_apply(
        WANTED, live(SPEC | {"dropped": 1, "merged": merged, "set": ["s", "dropped"]}, owned), "us"
    )


@pytest.mark.parametrize("missing", ["f:a", "f:merged", "f:set"])
def test_a_field_that_is_not_ours_yet_differs(missing):
    assert needs_apply(
        WANTED, live(owned={key: value for key, value in OWNED.items() if key != missing}), "us"
    )


@pytest.mark.parametrize("entry", [{"manager": "them"}, {"operation": "Update"}, {"subresource": "status"}])
def test_an_object_we_never_applied_differs(entry):
    assert needs_apply(WANTED, live(**entry), "us")


def test_an_empty_list_needs_no_owner():
    wanted = WANTED | {"spec": SPEC | {"empty": []}}
    assert not needs_apply(wanted, live(SPEC | {"empty": []}), "us")
    assert needs_apply(wanted, live(SPEC | {"empty": [1]}), "us")


def test_a_changed_label_differs():
    assert needs_apply(WANTED, live(labels={"a": "other"}), "us")
