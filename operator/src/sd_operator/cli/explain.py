# SPDX-License-Identifier: Apache-2.0
"""Explains the state of a service to a person: what it waits for, for how long, and what to do (pure).

The explanation is computed from live objects, by the same rules as the status. So it is correct while the operator is
down, and it reports that the stored status is outdated.
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
    "The resource is at generation {generation}, and the stored status is of generation {seen}.",
    "If this lasts longer than a few seconds, the operator does not run or cannot write the status: check its pod and logs.",
)


@dataclass(frozen=True)
class Finding:
    """One fact that a person should know.

    Attributes:
        title: the fact in a few words.
        message: the details, with times as elapsed time.
        advice: what to do; empty if the service recovers by itself.
        elapsed: how long the fact has been true, such as `12 min`; empty if unknown.
    """

    title: str
    message: str
    advice: str = ""
    elapsed: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table: its cells, and whether the state is good; None if this is not known yet."""

    cells: tuple[str, ...]
    good: bool | None


@dataclass(frozen=True)
class StartBar:
    """The start of a worker: a title, the phases in order with their seconds, and the phase that runs now, if any."""

    title: str
    seconds: Mapping[Phase, float]
    running: Phase | None = None


@dataclass(frozen=True)
class Explanation:
    """The state of one service. `starts` has the worker starts in progress, or the last one if there are none."""

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
        status: its current status, computed from the stored status and the live objects.
        snapshot: the observed state of the service.
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
    """A finding if the stored status is of an older generation, so the operator has not processed the last change."""
    seen, generation = (live.get("status") or {}).get("observedGeneration", 0), status.observed_generation
    if seen >= generation:
        return []
    message, advice = _BEHIND
    return [
        Finding(
            "The operator has not processed the latest change",
            message.format(seen=seen, generation=generation),
            advice,
        )
    ]


def _findings(status: Status, now: datetime) -> list[Finding]:
    """The condition Ready, then other conditions with an advice that is not shown yet."""
    found: list[Finding] = []
    for condition in status.conditions:
        reason = _meaning(condition.reason)
        is_shown = condition.type == ConditionType.READY or reason.advice
        message = _SINCE.sub(lambda since: f"for {_elapsed(since[1], now)}", condition.message)
        if is_shown and all(reason.advice != each.advice or not reason.advice for each in found):
            title = f"{condition.type}: {reason.meaning}"
            elapsed = _elapsed(condition.last_transition_time, now)
            found.append(Finding(title, message, reason.advice, elapsed))
    return found


def _meaning(reason: str) -> Meaning:
    """The meaning of a reason. For a reason of another version, the reason itself."""
    return REASONS[Reason(reason)] if reason in _REASONS else Meaning(reason)


def _of_a_newer_operator(live: Json, now: datetime) -> Iterable[Finding]:
    """Findings for stored conditions of an unknown type or reason, with the message of the operator that wrote them."""
    for condition in (live.get("status") or {}).get("conditions") or []:
        kind, reason = str(condition.get("type", "")), str(condition.get("reason", ""))
        if kind in _TYPES and reason in _REASONS:
            continue
        yield Finding(
            f"{kind}={condition.get('status', 'Unknown')}: {reason}, as the operator reported",
            str(condition.get("message", "")),
            "This version of sdservice is older than the operator and does not know this reason. Install the sdservice of the"
            " operator's release, or read docs/reasons.md of that release.",
            _elapsed(str(condition.get("lastTransitionTime", "")), now),
        )


def _is_good(condition: Condition) -> bool:
    return condition.status == _GOOD.get(condition.type, "True")


def _bars(status: Status, snapshot: Snapshot, now: datetime) -> Iterable[StartBar]:
    """The oldest worker starts in progress, or the last start if there are none."""
    last = status.cold_start
    over = last.worker if last else ""  # this start is over, even if Ray does not answer now
    found = [start for start in starts(snapshot, now) if start.running and start.worker != over]
    for start in found[:_STARTS]:
        more = (
            f" ({len(found) - _STARTS} more workers are starting)"
            if len(found) > _STARTS and start is found[_STARTS - 1]
            else ""
        )
        title = f"Worker {start.worker} is starting, for {_duration(start.total)}{more}"
        yield StartBar(title, start.seconds, start.running)
    if last is not None and not found:
        picture = last.first_picture_seconds
        first = "" if picture is None else f"; its first picture took {picture:.1f} s"
        title = f"Last start: worker {last.worker}, {_duration(last.total_seconds)}, {_elapsed(last.ready_at, now)} ago{first}"
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
    """The latest warnings, one for each object and reason."""
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
        message = " ".join(event.get("message", "").split())
        yield Row((_elapsed(stamp, now), event.get("reason", ""), subject, message), good=False)


def _elapsed(stamp: str, now: datetime) -> str:
    """The time from a UTC timestamp until now, such as `45 s`, `12 min`, `3 h 5 min` or `2 d 4 h`."""
    try:
        then = times.parsed(stamp)
    except ValueError:
        return "an unknown time"
    return _duration((now - then).total_seconds())


def _duration(length: float) -> str:
    seconds = max(0, int(length))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 2:  # noqa: PLR2004 - times below two minutes are shown in seconds
        return f"{seconds} s"
    if hours < 2:  # noqa: PLR2004 - likewise
        return f"{minutes} min"
    if days < 2:  # noqa: PLR2004 - likewise
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"
