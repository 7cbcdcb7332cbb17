# SPDX-License-Identifier: Apache-2.0
"""Checks after a fault.

Each function returns the violations (pure).

An empty list means success. Every line has the actual and the expected value.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from sd_testkit.fault_proxy.journal import Entry
from sd_testkit.json_types import Json
from sd_testkit.proving.state import NAME_LABEL, State, differences, owners


def same_end(wanted: State, found: State) -> list[str]:
    """(a) The state is the end of the run without faults."""
    return [f"(a) {each}" for each in differences(wanted, found)]


def no_more_made(wanted: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """(b) No child was created or deleted more often than without faults, according to the counts of a witness."""
    return [
        f"(b) {what}: {count} times, {wanted.get(what, 0)} without faults"
        for what, count in found.items()
        if count > wanted.get(what, 0)
    ]


def quiet(entries: Iterable[Entry]) -> list[str]:
    """(c) The operator writes nothing any more, in the requests of a while after the end was reached."""
    writes = Counter(str(each.request) for each in entries if each.request.is_write and not each.is_election)
    return [f"(c) {request}: {count} times after the end was reached" for request, count in writes.items()]


def stable(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """(c) No object changes any more, according to the resourceVersions."""
    return [
        f"(c) {name} went from {before.get(name)} to {after.get(name)}"
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    ]


def not_busy(entries: Iterable[Entry], seconds: float, most_per_minute: float) -> list[str]:
    """(d) The rate of idle requests stays below a limit."""
    asked = [each for each in entries if not each.is_election]
    rate = len(asked) / seconds * 60
    if rate <= most_per_minute:
        return []
    common = ", ".join(
        f"{count} x {request}"
        for request, count in Counter(str(each.request) for each in asked).most_common(5)
    )
    return [f"(d) {rate:.0f} requests per minute, {most_per_minute:.0f} are allowed: {common}"]


def told_truly(service: Json, wanted: Mapping[str, tuple[str, str]]) -> list[str]:
    """(e) The status of a live service describes the latest spec, and the conditions have the expected values."""
    if not service:
        return ["(e) the service does not exist"]
    status, generation = service.get("status") or {}, service["metadata"]["generation"]
    told = {each["type"]: (each["status"], each["reason"]) for each in status.get("conditions", [])}
    found = []
    if status.get("observedGeneration") != generation:
        found.append(f"(e) observedGeneration is {status.get('observedGeneration')}, generation {generation}")
    return found + [
        f"(e) {kind} is {told.get(kind)}, wanted {expected}"
        for kind, expected in wanted.items()
        if told.get(kind) != expected
    ]


def no_orphans(services: Iterable[Json], children: Iterable[Json]) -> list[str]:
    """(f) Each live object of one namespace with a service's label belongs to a service that exists."""
    uids = {each["metadata"]["uid"] for each in services}
    return [
        f"(f) {each['kind']} {each['metadata']['name']} of {each['metadata']['labels'][NAME_LABEL]} has no owner"
        for each in children
        if NAME_LABEL in (each["metadata"].get("labels") or {}) and not uids & set(owners(each))
    ]


def few_restarts(codes: list[int], most: int) -> list[str]:
    """(g) The process ended by itself no more often than permitted, according to its exit codes."""
    return [] if len(codes) <= most else [f"(g) {len(codes)} ends with codes {codes}, {most} are allowed"]
