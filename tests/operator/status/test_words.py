# SPDX-License-Identifier: Apache-2.0
"""Texts that a user meets are in plain English: short sentences, and none of the project's former private words.

The messages of conditions come from the random snapshots of test_consistency.py, and from samples for the cases that those do
not produce. Text of other programs (scheduler, kubelet, KubeRay, Ray) in them is
only a few words, so that it does not lengthen a sentence.
"""

import importlib.util
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings

from sd_operator import status
from sd_operator.api import Status
from sd_operator.api.status import ColdStart, ConditionType, Reason
from sd_operator.kube.failures import failure
from sd_operator.kube.kinds import RAY_SERVICE
from sd_operator.kube.ownership import conflict
from sd_operator.observe.effective_spec import of_spec
from sd_operator.observe.image_gate import Hold
from sd_operator.observe.preload_state import ImageState, PreloadState
from sd_operator.observe.snapshot import OldCluster, RayServiceView, Snapshot
from sd_operator.observe.upgrade_progress import UpgradeState
from sd_operator.observe.weights_gate import Fetching
from sd_operator.reconcile.events import changes, removed, replaced_in_place
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.counts import kept_room
from sd_operator.status.model import fetching_weights
from sd_operator.status.preload import preloaded, waiting_for_images
from sd_operator.status.reasons import CONDITIONS, REASONS
from sd_operator.status.start_warnings import delays
from sd_operator.status.upgrading import upgrading, waiting_for_others

_FILE = Path(__file__).parent / "test_consistency.py"
_SPEC = importlib.util.spec_from_file_location("random_snapshots", _FILE)
random_snapshots = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(random_snapshots)

MOST_WORDS = 25
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SINCE = "2026-01-02T03:04:05Z"

RULED_OUT = re.compile(
    r"\b(tells?|told|says?|said|looks?|looked|visits?|mend(s|ed)?|heal(s|ed)?|hears?|heard|anew|begins?|began|begun|"
    r"giv(es?|en|ing) back|hold|holds|held|who|whoever|ask(s|ed)? for|draw|draws|drew|drawn|drawings?|studio|drawer|"
    r"lanes?|pace|company|troubles?|verdicts?|intents?|echo|echoes|room|places?|goes on|serves on|change back|"
    r"\w+'s words)\b",
    re.IGNORECASE,
)
ALLOWED = {
    "on hold": "the one name for a change that waits",
    "hold the Lease": "Kubernetes has this word: a Lease has a holderIdentity",
    "in place": "the field's name for an update of a running object",
}


def faults(text):
    """The sentences that are too long, and the words that are ruled out."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    long = [each for each in sentences if len(each.split()) > MOST_WORDS]
    for phrase in ALLOWED:
        text = re.sub(rf"\b{phrase}\b", "", text, flags=re.IGNORECASE)
    return [*long, *(found[0] for found in RULED_OUT.finditer(text))]


def texts(computed):
    yield from (each.message for each in computed.conditions)
    if computed.preload:
        yield from (each.message or "" for each in computed.preload.images)


@settings(max_examples=300, deadline=None)
@given(scene=random_snapshots.snapshots())
def test_conditions_are_in_plain_words(scene):
    resource, snapshot, held = scene
    computed = status.compute(resource, snapshot, "image:1", Status(), NOW, held=held)
    found = {text: faults(text) for text in texts(computed)}
    assert {text: each for text, each in found.items() if each} == {}


@pytest.mark.parametrize("reason", [*REASONS], ids=str)
def test_reasons_are_explained_in_plain_words(reason):
    assert [*faults(REASONS[reason].meaning), *faults(REASONS[reason].advice)] == []


@pytest.mark.parametrize("kind", [*ConditionType], ids=str)
def test_conditions_are_explained_in_plain_words(kind):
    assert faults(CONDITIONS[kind]) == []


EFFECTIVE = of_spec(random_snapshots.RESOURCES[0].spec, "r/i:1")
VIEW = RayServiceView(True, SINCE, active="a")
HOLD = Hold(SINCE, SINCE, is_over=False, seconds=60)
LATE = Hold(SINCE, SINCE, is_over=True, seconds=60)
IMAGE = ImageState("r/i:1", frozenset("ab"), frozenset("a"), frozenset("b"))
APPLIED = ConditionState("True", Reason.APPLICATION_RUNNING, "Ray runs the configuration of this spec.")
START = ColdStart(
    worker="w",
    ready_at=SINCE,
    total_seconds=900.0,
    node_seconds=0.0,
    image_seconds=0.0,
    ray_seconds=400.0,
    weights_seconds=500.0,
    pipeline_seconds=0.0,
)
OBJECT = {"kind": "RayService", "metadata": {"name": "a"}}
LEAVING = {"kind": "RayService", "metadata": {"name": "a", "deletionTimestamp": SINCE}}


def state(**facts):
    return Snapshot(VIEW, upgrade=UpgradeState(**facts))


def images(**facts):
    return preloaded(EFFECTIVE, Snapshot(VIEW, preload=PreloadState(**facts))).message


def upgrade(strategy, **facts):
    return upgrading(replace(EFFECTIVE, strategy=strategy), state(**facts)).message


SAMPLES = [
    waiting_for_others(1).message,
    waiting_for_others(3).message,
    waiting_for_images(HOLD).message,
    waiting_for_images(LATE).message,
    preloaded(EFFECTIVE, Snapshot(VIEW, preload=PreloadState((IMAGE,))), LATE).message,
    images(images=(IMAGE,)),
    images(images=(IMAGE,), unmade=2),
    images(images=(ImageState("r/i:1", frozenset("a"), frozenset("a"), digests=2),)),
    images(sought=("pool=l4",)),
    images(sought=("pool=l4",), by_gpu_labels=True, unlabelled=("a",)),
    images(hidden="it may not read nodes. Allow the operator to get and list nodes"),
    fetching_weights(Fetching(1, 3)).message,
    fetching_weights(Fetching(0, 1, endings=("sd_runtime.errors.ModelNotFound: none",))).message,
    delays(APPLIED, START, EFFECTIVE).message,
    upgrade("InPlaceOnly", behind="image"),
    upgrade("Incremental", behind="image"),
    upgrade("NewCluster", outdated="1 of 2 pods, in image"),
    kept_room(Snapshot(VIEW, old_clusters=(OldCluster("b", 2), OldCluster("c", 1, SINCE)))),
    str(conflict(OBJECT, "RayService", "a")),
    str(conflict(LEAVING, "RayService", "a")),
    str(failure(RAY_SERVICE, 404, b"{}", None)),
    str(failure(RAY_SERVICE, 500, b'{"message": "unknown field \\"spec.a\\""}', None)),
    str(failure(RAY_SERVICE, 500, b'{"message": "request is too large"}', None)),
    str(failure(RAY_SERVICE, 500, b'{"message": "failed calling webhook"}', None)),
    *(each.message for each in changes([OBJECT], [OBJECT], [OBJECT])),
    removed(OBJECT, capacity_is_needed=True).message,
    removed(OBJECT, capacity_is_needed=False).message,
    replaced_in_place(60).message,
]


@pytest.mark.parametrize("text", SAMPLES)
def test_other_messages_are_in_plain_words(text):
    assert text
    assert faults(text) == []


def test_a_private_word_and_a_long_sentence_are_found():
    assert faults("All pods are given back.") == ["given back"]
    assert faults(" ".join(["word"] * (MOST_WORDS + 1))) != []
    assert faults("The change stays on hold.") == []
