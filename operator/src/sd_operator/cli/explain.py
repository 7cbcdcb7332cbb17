# SPDX-License-Identifier: Apache-2.0
"""Why a service is in the state it is in, for a person: what it waits for, for how long, what to do (pure).

It is computed from live objects by the same rules as the status, so it is right while the operator is down, and says
when the status on record is old.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sd_operator import times
from sd_operator.api import Condition, Status
from sd_operator.api.status import ConditionType, Reason
from sd_operator.json_types import Json
from sd_operator.observe.cold_start import Phase, of_record, starts
from sd_operator.observe.snapshot import Snapshot
from sd_operator.status.reasons import REASONS, Meaning

_SINCE = re.compile(r"since (\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z)")
_EVENTS = 8
_STARTS = 3
_TYPES, _REASONS = frozenset(ConditionType), frozenset(Reason)
_GOOD = {ConditionType.UPGRADING.value: "False", ConditionType.SUSPENDED.value: "False"}
_BEHIND = (
    "status.observedGeneration is {seen}, the resource is at generation {generation}",
    "If this lasts longer than seconds, the operator is not running or may not write: look at its pod and its logs.",
)


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know.

    Attributes:
        title: in a few words.
        words: what was said about it, times as elapsed time.
        advice: what to do; empty where time does it.
        elapsed: how long it has been so, such as `12 min`; empty where nothing tells.
    """

    title: str
    words: str
    advice: str = ""
    elapsed: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table: its cells, and whether it is as it should be; None where nobody knows yet."""

    cells: tuple[str, ...]
    good: bool | None


@dataclass(frozen=True)
class StartBar:
    """The start of a worker: its title, its phases with seconds in order, and which of them runs now, if any."""

    title: str
    seconds: Mapping[Phase, float]
    running: Phase | None = None


@dataclass(frozen=True)
class Explanation:
    """The state of one service; `starts` are those of workers that start now, or else the last one."""

    headline: str
    good: bool
    findings: tuple[Finding, ...]
    starts: tuple[StartBar, ...]
    conditions: tuple[Row, ...]
    pods: tuple[Row, ...]
    events: tuple[Row, ...]


def explain(
    live: Json, status: Status, snapshot: Snapshot, events: Iterable[Json], now: datetime
) -> Explanation:
    """Explain a service.

    Args:
        live: the resource.
        status: its status as it should read now, computed on top of the one on record.
        snapshot: what was observed of it.
        events: Events about the resource and its objects.
        now: the time, UTC.
    """
    ready = status.conditions[0]
    metadata = live["metadata"]
    name = f"{metadata['name']} in namespace {metadata['namespace']}"
    state = {"True": "is ready", "False": "is not ready", "Unknown": "may be ready"}[ready.status]
    replicas = f", {status.replicas.summary} replicas" if status.replicas else ""
    elapsed = _elapsed(ready.last_transition_time, now)
    return Explanation(
        headline=f"{name} {state}: {ready.reason}, for {elapsed}{replicas}",
        good=ready.status == "True" and ready.reason != Reason.DEGRADED,
        findings=(*_behind(live, status), *_findings(status, now), *_of_a_newer_operator(live, now)),
        starts=tuple(_bars(status, snapshot, now)),
        conditions=tuple(_condition_row(condition, now) for condition in status.conditions),
        pods=tuple(_pod_rows(snapshot)),
        events=tuple(_event_rows(events, now)),
    )


def _behind(live: Json, status: Status) -> list[Finding]:
    """The status on record is of an older spec: nobody works on it."""
    seen, generation = (live.get("status") or {}).get("observedGeneration", 0), status.observed_generation
    if seen >= generation:
        return []
    words, advice = _BEHIND
    return [
        Finding(
            "The operator has not taken up the latest change",
            words.format(seen=seen, generation=generation),
            advice,
        )
    ]


def _findings(status: Status, now: datetime) -> list[Finding]:
    """Ready first, then what else a person can act on and says something new."""
    found: list[Finding] = []
    for condition in status.conditions:
        told = _meaning(condition.reason)
        worth_telling = condition.type == ConditionType.READY or told.advice
        words = _SINCE.sub(lambda since: f"for {_elapsed(since[1], now)}", condition.message)
        if worth_telling and all(told.advice != each.advice or not told.advice for each in found):
            title = f"{condition.type}: {told.meaning}"
            found.append(Finding(title, words, told.advice, _elapsed(condition.last_transition_time, now)))
    return found


def _meaning(reason: str) -> Meaning:
    """What a reason means; one of another version speaks for itself."""
    return REASONS[Reason(reason)] if reason in _REASONS else Meaning(reason)


def _of_a_newer_operator(live: Json, now: datetime) -> Iterable[Finding]:
    """Conditions on record whose type or reason this version does not know, in the words of the operator that wrote them."""
    for condition in (live.get("status") or {}).get("conditions") or []:
        kind, reason = str(condition.get("type", "")), str(condition.get("reason", ""))
        if kind in _TYPES and reason in _REASONS:
            continue
        yield Finding(
            f"{kind}={condition.get('status', 'Unknown')}: {reason}, as the operator reported",
            str(condition.get("message", "")),
            "This sdservice is older than the operator and does not know what this means. Install the sdservice of the"
            " operator's release, or read its docs/reasons.md.",
            _elapsed(str(condition.get("lastTransitionTime", "")), now),
        )


def _is_good(condition: Condition) -> bool:
    return condition.status == _GOOD.get(condition.type, "True")


def _bars(status: Status, snapshot: Snapshot, now: datetime) -> Iterable[StartBar]:
    """The oldest of the starts under way, or else the last one."""
    last = status.cold_start
    over = last.worker if last else ""  # also where Ray cannot be asked now
    found = [start for start in starts(snapshot, now) if start.running and start.worker != over]
    for start in found[:_STARTS]:
        more = (
            f" ({len(found) - _STARTS} more start)"
            if len(found) > _STARTS and start is found[_STARTS - 1]
            else ""
        )
        title = f"Worker {start.worker} is starting, for {_duration(start.total)}{more}"
        yield StartBar(title, start.seconds, start.running)
    if last is not None and not found:
        picture = last.first_picture_seconds
        drawn = "" if picture is None else f"; its first picture took {picture:.1f} s"
        title = f"Last start: worker {last.worker}, {_duration(last.total_seconds)}, {_elapsed(last.ready_at, now)} ago{drawn}"
        yield StartBar(title, of_record(last).seconds)


def _condition_row(condition: Condition, now: datetime) -> Row:
    elapsed = _elapsed(condition.last_transition_time, now)
    good = None if condition.status == "Unknown" else _is_good(condition)
    return Row((condition.type, condition.status, condition.reason, elapsed), good)


def _pod_rows(snapshot: Snapshot) -> Iterable[Row]:
    for pod in sorted(snapshot.pods, key=lambda pod: (pod.cluster, not pod.is_head, pod.name)):
        state = "ready" if pod.ready else pod.problem.reason.value if pod.problem else "not ready"
        yield Row((pod.name, pod.group, state), pod.ready)


def _event_rows(events: Iterable[Json], now: datetime) -> Iterable[Row]:
    """The latest warnings, one of each kind and object."""
    latest: dict[tuple[str, str], tuple[str, Json]] = {}
    for event in events:
        stamp = times.of_event(event)
        key = (event["involvedObject"].get("name", ""), event.get("reason", ""))
        if event.get("type") == "Warning" and stamp >= latest.get(key, ("",))[0]:
            latest[key] = (stamp, event)
    newest = sorted(latest.values(), key=lambda each: each[0], reverse=True)
    for stamp, event in newest[:_EVENTS]:
        involved = event["involvedObject"]
        subject = f"{involved.get('kind', '')}/{involved.get('name', '')}"
        words = " ".join(event.get("message", "").split())
        yield Row((_elapsed(stamp, now), event.get("reason", ""), subject, words), good=False)


def _elapsed(stamp: str, now: datetime) -> str:
    """`45 s`, `12 min`, `3 h 5 min` or `2 d 4 h` from a time in UTC until now."""
    try:
        then = times.parsed(stamp)
    except ValueError:
        return "an unknown time"
    return _duration((now - then).total_seconds())


def _duration(length: float) -> str:
    seconds = max(0, int(length))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 2:  # noqa: PLR2004 - two minutes in seconds still read well
        return f"{seconds} s"
    if hours < 2:  # noqa: PLR2004 - likewise
        return f"{minutes} min"
    if days < 2:  # noqa: PLR2004 - likewise
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"
