# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime

from sd_operator.api import Condition, Status
from sd_operator.reconcile.events import Note, changes, event, flips

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
INVOLVED = {"metadata": {"name": "imagine", "namespace": "team", "uid": "uid-1"}}


def status(*states):
    conditions = tuple(
        Condition(
            type=kind,
            status=state,
            reason=reason,
            message="m",
            last_transition_time="2026-01-01T00:00:00Z",
            observed_generation=1,
        )
        for kind, state, reason in states
    )
    return Status(conditions=conditions)


def test_a_flip_is_told_once():
    before = status(("Ready", "False", "Starting"), ("Upgrading", "False", "UpToDate"))
    after = status(("Ready", "True", "Serving"), ("Upgrading", "False", "UpToDate"))
    assert flips(before, after) == [Note("Serving", "Ready=True: m")]
    assert flips(after, after) == []


def test_losing_what_was_good_is_a_warning():
    before, after = status(("Ready", "True", "Serving")), status(("Ready", "False", "HeadNotReady"))
    assert flips(before, after) == [Note("HeadNotReady", "Ready=False: m", warning=True)]


def test_a_new_reason_of_ready_is_told():
    before, after = status(("Ready", "False", "Starting")), status(("Ready", "False", "NoEndpoints"))
    assert [note.reason for note in flips(before, after)] == ["NoEndpoints"]


def test_first_status_is_told_where_the_spec_is_refused():
    after = status(("Ready", "False", "Creating"), ("Accepted", "True", "Accepted"))
    assert flips(Status(), after) == []
    after = status(("Ready", "False", "Refused"), ("Accepted", "False", "Refused"))
    assert flips(Status(), after) == [Note("Refused", "Ready=False: m", warning=True)]


def test_children_are_named_in_one_note():
    child = {"kind": "RayService", "metadata": {"name": "imagine"}}
    other = {"kind": "DaemonSet", "metadata": {"name": "a"}}
    assert [note.message for note in changes([child, other], [child])] == [
        "Applied RayService imagine, DaemonSet a",
        "Deleted RayService imagine, which the spec no longer needs",
    ]
    assert changes([], []) == []


def test_event_regards_the_resource_and_is_unique():
    first, second = event(Note("A", "a"), INVOLVED, NOW), event(Note("B", "a"), INVOLVED, NOW)
    assert first["regarding"]["uid"] == "uid-1"
    assert first["eventTime"] == "2026-01-02T03:04:05.000006Z"
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert len(event(Note("A", "x" * 5000), INVOLVED, NOW)["note"]) == 1024


def test_a_long_note_ends_with_a_whole_sentence_and_fits_the_api_servers_bytes():
    """The API server counts bytes; a note that is too long by one is refused as a whole."""
    sentence = "Zwölf Knoten prüfen. "
    note = event(Note("Refused", sentence * 60), INVOLVED, NOW)["note"]
    assert len(note.encode()) <= 1024
    assert note.endswith("prüfen. ...")
