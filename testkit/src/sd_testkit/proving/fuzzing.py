# SPDX-License-Identifier: Apache-2.0
"""Random lifecycles of services.

Each service must end in the same state as its twin, which is created from the last spec and left alone.

Many services run at a time. The test creates them, edits them, changes them by hand, deletes them and creates them again.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
from kubernetes.aio.client import ApiException

from sd_testkit.generators.random_resources import broken, values
from sd_testkit.generators.random_specs import specs
from sd_testkit.json_types import Json
from sd_testkit.proving import oracles, state
from sd_testkit.proving.lane import Lane, fresh_name

_BASE: Json = {"model": {"preset": "shapes"}, "replicas": {"min": 1, "max": 1}}
_POLL = 1.0
_WITHIN = 150.0
_LOOKS = 10
"""Attempts to find a child.

Some children never appear, since the service does not need them or its spec was refused.
"""
_NOBODY = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "name": "nobody",
    "uid": "00000000-0000-0000-0000-000000000000",
    "controller": True,
}
EDITS: dict[str, Json | None] = {
    "delete": None,
    "no label": {"metadata": {"labels": {state.NAME_LABEL: None}}},
    "label of another": {"metadata": {"labels": {state.NAME_LABEL: "another"}}},
    "no owner": {"metadata": {"ownerReferences": []}},
    "owner that is not there": {"metadata": {"ownerReferences": [_NOBODY]}},
    "neither label nor owner": {"metadata": {"labels": {state.NAME_LABEL: None}, "ownerReferences": []}},
    "selector": {"spec": {"template": {"spec": {"nodeSelector": {"example.org/none": "x"}}}}},
    "config": {"spec": {"serveConfigV2": "applications: []"}},
}


@dataclass(frozen=True)
class Meddling:
    """A hand edit of a child: its kind, and one of `EDITS`."""

    kind: str
    edit: str


@dataclass(frozen=True)
class Case:
    """One lifecycle of a service.

    Attributes:
        specs: specs that are applied one after the other. A refused spec changes nothing.
        meddling: hand edits during these changes.
        deleted: whether the service is deleted and created again before the last spec.
    """

    specs: tuple[Json, ...]
    meddling: tuple[Meddling, ...]
    deleted: bool


def cases(schema: Json) -> st.SearchStrategy[Case]:
    """Return random lifecycles. `schema` is the schema of the spec."""
    valid = st.one_of(values(schema).map(_possible), specs(), specs())
    any_spec = st.one_of(valid, valid, valid, broken(schema).map(_possible), broken(schema))
    quiet = st.one_of(*[any_spec.map(_without_pods)] * 3, any_spec)
    meddling = st.builds(
        Meddling,
        st.sampled_from(["RayService", "RayService", "DaemonSet", "Secret"]),
        st.sampled_from(sorted(EDITS)),
    ).map(_bearable)
    return st.builds(
        Case,
        st.lists(quiet, min_size=1, max_size=3).map(tuple),
        st.lists(meddling, max_size=3).map(tuple),
        st.booleans(),
    )


def _possible(spec: Json) -> Json:
    """Return the spec with a model that the rules beyond the schema allow more often than not."""
    model = spec.get("model")
    return {**_BASE, **spec, "model": _BASE["model"]} if isinstance(model, dict) else {**_BASE, **spec}


def _without_pods(spec: Json) -> Json:
    """Return the spec without image preload. Preload pods cost the control plane more than all other objects."""
    return {**spec, "imagePreload": {"mode": "Disabled"}}


def _bearable(meddling: Meddling) -> Meddling:
    """Return an edit that the operator repairs.

    The operator never writes an existing Secret. A key that another manager adds to a DaemonSet's selector stays, since it
    belongs to that manager.
    """
    if meddling.kind == "Secret":
        return Meddling("Secret", "delete")
    if meddling == Meddling("DaemonSet", "selector"):
        return Meddling("DaemonSet", "delete")
    return meddling


@dataclass
class Tally:
    """Results so far: number of cases, number of cases whose every spec was refused, and failures."""

    cases: int = 0
    refused: int = 0
    edits: int = 0
    broken: tuple[str, ...] = ()


async def run(lane: Lane, batch: list[Case], tally: Tally) -> None:
    """Run cases side by side, then compare each service with its twin."""
    names = [fresh_name() for _ in batch]
    edits = await asyncio.gather(*(_live(lane, name, case) for name, case in zip(names, batch, strict=True)))
    tally.cases, tally.edits = tally.cases + len(batch), tally.edits + sum(edits)
    found = await asyncio.gather(*(_twin(lane, name) for name in names))
    twins = {
        name: (twin, case) for name, twin, case in zip(names, found, batch, strict=True) if twin is not None
    }
    tally.refused += len(batch) - len(twins)
    tally.broken += tuple(await _compare(lane, twins))
    both = [each for name, (twin, _) in twins.items() for each in (name, twin)]
    await asyncio.gather(*map(lane.delete, both))


async def _twin(lane: Lane, name: str) -> str | None:
    """Create a service of another name with the same spec.

    Return its name, or None if the first service does not exist.
    """
    live = await lane.service(name)
    if live is None:
        return None
    twin = fresh_name()
    await lane.apply(twin, live["spec"])
    return twin


async def _live(lane: Lane, name: str, case: Case) -> int:
    """Run one lifecycle. Return the number of edits that found their child."""
    edits = asyncio.create_task(_meddle(lane, name, case.meddling))
    for number, spec in enumerate(case.specs):
        if case.deleted and number == len(case.specs) - 1:
            await lane.delete(name)
        await _try(lane.apply(name, spec))
    return await edits


async def _meddle(lane: Lane, name: str, meddling: tuple[Meddling, ...]) -> int:
    done = 0
    for each in meddling:
        for _ in range(_LOOKS):
            live = await _child(lane, name, each.kind)
            if live is not None:
                done += await _edit(lane, live, EDITS[each.edit])
                break
            await asyncio.sleep(_POLL / 5)
    return done


async def _child(lane: Lane, name: str, kind: str) -> Json | None:
    if kind == "DaemonSet":  # Several services may share it.
        service = await lane.service(name)
        if service is None:
            return None
        listed = await lane.server.list_all(kind, namespace=lane.namespace)
        return next((each for each in listed if state.belongs_to(each, service)), None)
    names = {"RayService": name, "Secret": f"{name}-ray-token"}
    return await lane.server.get(kind, lane.namespace, names[kind])


async def _edit(lane: Lane, live: Json, patch: Json | None) -> bool:
    return await _try(lane.server.delete(live) if patch is None else lane.server.merge(live, patch))


async def _try(request: Any) -> bool:
    try:
        await request
    except ApiException as error:
        # A request may be refused, or its object may be gone or changed: a lifecycle permits all of that. A value of
        # the wrong type gives a 500.
        if error.status not in {400, 404, 409, 422} and b"typed patch" not in _bytes(error.body):
            raise
        return False
    return True


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode()


async def _compare(lane: Lane, twins: dict[str, tuple[str, Case]]) -> list[str]:
    """Wait until each service equals its twin. Return the differences at the deadline."""
    deadline = time.monotonic() + _WITHIN
    while True:
        found = await _differences(lane, twins)
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(_POLL)


async def _differences(lane: Lane, twins: dict[str, tuple[str, Case]]) -> list[str]:
    children = await lane.children()
    services = await lane.services()
    by_name = {each["metadata"]["name"]: each for each in services}
    found = []
    for name, (twin, case) in twins.items():
        one, other = (state.of(by_name[each], children) for each in (name, twin))
        wrong = [*oracles.told_truly(by_name[name], {}), *oracles.same_end(other, one)]
        found += [f"{name}: {each}; {case.meddling}, deleted: {case.deleted}" for each in wrong[:3]]
    return found
