# SPDX-License-Identifier: Apache-2.0
"""The reader of a pod's response returns or refuses for any response, and the status can still be computed and written."""

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sd_operator import status
from sd_operator.api import Status, parse
from sd_operator.builders.serve_config import serve_config
from sd_operator.errors import RayUnavailable
from sd_operator.kube.client import yaml_text
from sd_operator.observe import cold_start
from sd_operator.observe.application import needs_probe
from sd_operator.observe.snapshot import PodTimes, PodView, Snapshot, observe
from sd_operator.ray.replica_starts import read_starts
from sd_operator.ray.serve_diff import differences
from sd_operator.ray.serve_state import Reading, carry_over, read
from sd_operator.ray.traceback import reason, runtime_problem
from sd_operator.strict_json import parse_object

ROOT = Path(__file__).parents[3]
RECORDED = json.loads((ROOT / "tests/data/serve_answers.json").read_text())
EXAMPLE = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text())
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLUSTER = "imagine-abcde"
STARTS = {
    "starts": {
        "r1": {
            "began": NOW.timestamp() - 60,
            "seconds": {"import": 9.5, "weights": 3.0},
            "phase": "pipeline",
            "since": NOW.timestamp() - 10,
            "first_picture_seconds": None,
        }
    }
}
KEYS = st.sampled_from(
    [
        "applications",
        "imagine",
        "status",
        "message",
        "deployments",
        "model",
        "ingress",
        "replicas",
        "state",
        "replica_id",
        "node_ip",
        "target_num_replicas",
        "deployment_config",
        "deployed_app_config",
        "user_config",
        "limits",
        "args",
        "proxy_location",
        "http_options",
        "starts",
        "began",
        "seconds",
        "phase",
        "since",
        "first_picture_seconds",
        "import",
        "weights",
        "a",
        "�",
    ]
)
TEXTS = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(
    [
        "RUNNING",
        "DEPLOY_FAILED",
        "UNHEALTHY",
        "DEPLOYING",
        "STARTING",
        "a.b.C: d",
        "\x1b[31mA: b",
        "\ud800",
        "x" * 5000,
    ]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**18, -1, 0, 1e308, 1.7e9, -(10**400), 2**31])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | TEXTS, inner, max_size=5),
    max_leaves=15,
)
MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def mutated(random, original, value):
    """One part of a recorded answer replaced, removed or doubled."""
    found = copy.deepcopy(original)
    parts = list(parts_of(found))
    if not parts:
        return found
    place, key = random.choice(parts)
    match random.randrange(4):
        case 0:
            del place[key]
        case 1:
            place[key] = [place[key], place[key]]
        case _:
            place[key] = value
    return found


def parts_of(value):
    """Every place below, as what holds it and its key there."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from parts_of(value[key])


def answers(originals):
    """Recorded answers with one or two parts that are something else, and whatever else is JSON."""
    once = st.builds(mutated, RANDOM, st.sampled_from(originals), VALUES)
    return once | st.builds(mutated, RANDOM, once, VALUES) | VALUES


RANDOM = st.randoms(use_true_random=False)
ANSWERS = answers(list(RECORDED.values()))
REPORTS = answers([STARTS])
RESOURCE = parse(
    {**EXAMPLE, "metadata": {"name": "imagine", "namespace": "team", "uid": "u", "generation": 3}}
)
CONFIG = serve_config(RESOURCE.spec)
RAY_SERVICE = {
    "metadata": {"name": "imagine", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "status": {"observedGeneration": 1, "numServeEndpoints": 1},
}


def state_of(answer):
    """What is read of it; None where it is refused, with a reason that can be shown."""
    try:
        return read(answer)
    except RayUnavailable as error:
        refused = str(error)
    assert refused.isprintable()
    assert len(refused) <= 300
    return None


def pods(*, ready):
    at = NOW - timedelta(minutes=1)
    times = PodTimes(at, at, at, at)
    worker = PodView(CLUSTER, "gpu", is_head=False, ready=ready, ip="10.0.0.2", in_service=True, times=times)
    return PodView(CLUSTER, "headgroup", is_head=True, ready=ready, uid="h"), worker


def can_be_written(computed):
    """The API server takes it: it is JSON of bounded length, in UTF-8, with numbers of its kinds."""
    body = computed.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert len(yaml_text(body).encode()) < 100_000
    assert Status.model_validate_json(json.dumps(body)) == computed
    assert 0 <= computed.replicas.ready <= 10**6


@MANY
@given(ANSWERS, REPORTS, st.booleans(), st.booleans(), st.sampled_from(["", "Ray answers 302"]))
def test_a_status_is_computed_from_any_answer(answer, report, is_ready, is_serving, failure):
    state = state_of(answer)
    starts = read_starts(report)
    serving = {"activeServiceStatus": {"rayClusterName": CLUSTER}}
    coming = {"pendingServiceStatus": {"rayClusterName": CLUSTER}}
    live = {**RAY_SERVICE, "status": {**RAY_SERVICE["status"], **(serving if is_serving else coming)}}
    reading = {}
    if state is not None:
        list(map(str, differences(CONFIG, state)))
        # Whatever the replicas are named: their reports are of these.
        told = {**starts, **dict(zip(state.models, starts.values(), strict=False))}
        reading = {CLUSTER: Reading(state, NOW, fresh=not failure, starts=told, failure=failure)}
    snapshot = Snapshot(observe(live, []).ray_service, pods(ready=is_ready), serve=reading)
    needs_probe(snapshot)
    cold_start.news(snapshot, None, NOW)
    can_be_written(status.compute(RESOURCE, snapshot, "image:1", Status(), NOW))


@MANY
@given(ANSWERS, ANSWERS)
def test_what_was_seen_before_is_carried_over(answer, before):
    state, former = state_of(answer), state_of(before)
    if state is not None:
        carried = carry_over(state, former)
        assert read_starts(answer) is not None
        list(map(str, differences(CONFIG, carried)))


@MANY
@given(VALUES)
def test_a_status_is_computed_from_whatever_kuberay_relays(relayed):
    for part in (
        {"imagine": relayed},
        relayed,
        {"imagine": {"serveDeploymentStatuses": relayed, "status": relayed}},
    ):
        service = {"rayClusterName": CLUSTER, "applicationStatuses": part}
        live = {**RAY_SERVICE, "status": {**RAY_SERVICE["status"], "activeServiceStatus": service}}
        snapshot = Snapshot(observe(live, []).ray_service, pods(ready=True))
        can_be_written(status.compute(RESOURCE, snapshot, "image:1", Status(), NOW))


@MANY
@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_or_refused(body):
    try:
        assert isinstance(parse_object(body), dict)
    except RayUnavailable as error:
        refused = str(error)
    else:
        refused = "Ray's answer is fine"
    assert refused.startswith("Ray's answer ")


@MANY
@given(st.text(st.characters(codec=None)))
def test_any_message_has_a_line_that_tells_the_reason(text):
    assert isinstance(reason(text), str)
    runtime_problem(text)


LONG = 200_000


@pytest.mark.parametrize(
    "text",
    ["a" * LONG, "a." * LONG, "A" * LONG, "A.A" * LONG, "\x1b[" * LONG, "\x1b[1" + "1" * LONG, "A: " * LONG, "\n" * LONG,
     "a.RayTaskError(" * LONG, "RayTaskError(" + "x" * LONG, " " * LONG, "\r" * LONG, "A: Traceback" * LONG],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_long_messages_cost_no_time(text):
    """More than a second for one would be a pattern that tries again and again."""
    for _ in range(10):
        runtime_problem(text)
