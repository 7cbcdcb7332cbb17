# SPDX-License-Identifier: Apache-2.0
"""The stored records of starts, over a store like that of Ray's head."""

from types import SimpleNamespace

import pytest
from ray.exceptions import RaySystemError

from sd_runtime.serving import startup_store
from sd_runtime.startup import StartReport

NOW = 10_000.0
LOADING = StartReport(NOW, {"import": 4.0}, "weights", NOW + 4)


class Store:
    """Ray's key-value functions over a dict."""

    def __init__(self):
        self.kept, self.away = {}, False

    def _internal_kv_initialized(self):
        return True

    def _internal_kv_put(self, key, value, *, namespace):
        self._answer()
        self.kept[namespace, key] = value.encode()

    def _internal_kv_get(self, key, *, namespace):
        return self.kept.get((namespace, key.decode()))

    def _internal_kv_list(self, prefix, *, namespace):
        self._answer()
        return [key.encode() for space, key in self.kept if space == namespace]

    def _internal_kv_del(self, key, *, namespace):
        del self.kept[namespace, key]

    def _answer(self):
        if self.away:
            raise RaySystemError("no answer")


@pytest.fixture
def store(monkeypatch):
    found = Store()
    monkeypatch.setattr(startup_store, "internal_kv", found)
    monkeypatch.setattr(startup_store, "time", SimpleNamespace(time=lambda: NOW))
    return found


@pytest.fixture
def tell(store, monkeypatch):
    """Tell as a replica of this id."""

    def as_replica(replica, report):
        context = SimpleNamespace(replica_id=SimpleNamespace(unique_id=replica))
        monkeypatch.setattr(startup_store, "serve", SimpleNamespace(get_replica_context=lambda: context))
        startup_store.publish(report)

    return as_replica


def test_the_latest_note_of_each_replica_is_read(tell):
    tell("a", StartReport(NOW, {}, "import", NOW))
    tell("a", LOADING)
    tell("b", StartReport(NOW, {}, "import", NOW))
    assert startup_store.published() == {"a": LOADING, "b": StartReport(NOW, {}, "import", NOW)}


def test_a_start_takes_notes_away_that_are_older_than_an_hour(tell):
    tell("old", StartReport(NOW - 4000, {"import": 4.0}, "", NOW - 3700))
    tell("young", StartReport(NOW - 4000, {"import": 4.0}, "", NOW - 3500))
    tell("new", StartReport(NOW, {}, "import", NOW))
    assert set(startup_store.published()) == {"young", "new"}


def test_no_start_fails_for_want_of_a_head(tell, store, caplog):
    store.away = True
    tell("a", LOADING)
    assert "the start of this replica could not be reported" in caplog.text


def test_outside_ray_nothing_is_told():
    startup_store.publish(LOADING)
