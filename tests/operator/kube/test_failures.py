# SPDX-License-Identifier: Apache-2.0
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from sd_operator.errors import ClusterUnavailable, KubeRayMissing, KubeRayTooOld, Refused
from sd_operator.kube import RAY_SERVICE, SECRET, SERVICE
from sd_operator.kube.failures import failure, names_an_object

TERMINATING = "create not allowed while custom resource definition is terminating"


def status(code, message="no", **details):
    return json.dumps({"kind": "Status", "code": code, "message": message, "details": details}).encode()


@pytest.mark.parametrize(
    ("kind", "code", "body", "expected"),
    [
        (RAY_SERVICE, 404, b"404 page not found\n", KubeRayMissing),
        (RAY_SERVICE, 404, status(404, name="imagine"), Refused),
        (RAY_SERVICE, 403, status(403, f"forbidden: {TERMINATING}"), KubeRayMissing),
        (RAY_SERVICE, 403, status(403, "forbidden: exceeded quota"), Refused),
        (SECRET, 403, status(403, TERMINATING), Refused),
        (SECRET, 401, status(401), ClusterUnavailable),
        (SECRET, 403, status(403), Refused),
        (SECRET, 409, status(409), ClusterUnavailable),
        (SECRET, 422, status(422), Refused),
        (SECRET, 429, status(429), ClusterUnavailable),
        (SECRET, 500, b"", ClusterUnavailable),
        (SECRET, 500, status(500, "etcdserver: leader changed"), ClusterUnavailable),
        (SECRET, 500, status(500, "etcdserver: request is too large"), Refused),
        (SECRET, 500, status(500, "trying to send message larger than max (9 vs. 8)"), Refused),
        (SECRET, 500, status(500, 'Internal error occurred: failed calling webhook "a.b"'), Refused),
        (SECRET, 503, b"upstream", ClusterUnavailable),
        (RAY_SERVICE, 500, status(500, ".spec.suspend: field not declared in schema"), KubeRayTooOld),
        (RAY_SERVICE, 400, status(400, 'strict decoding error: unknown field "spec.suspend"'), KubeRayTooOld),
        (SECRET, 400, status(400, 'strict decoding error: unknown field "spec.x"'), Refused),
    ],
)
def test_what_an_answer_means(kind, code, body, expected):
    assert type(failure(kind, code, body, None)) is expected


def test_the_servers_words_are_kept():
    assert "exceeded quota" in str(failure(SECRET, 403, status(403, "exceeded quota"), None))


def after(retry_after):
    return failure(SECRET, 429, status(429), retry_after).retry_after_seconds


def test_retry_after_is_honoured_as_number_and_as_time():
    assert (after("7"), after("0.5")) == (7, 0.5)
    coming = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < after(coming) <= 60


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        ("86400", 300),
        ("inf", 300),
        ("0", None),
        ("-1", None),
        ("nan", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00", None),
    ],
)
def test_retry_after_that_helps_nobody_leaves_the_pause_to_us(retry_after, pause):
    assert after(retry_after) == pause


def test_a_missing_object_is_told_from_a_missing_kind():
    assert names_an_object(status(404, name="a"))
    assert not names_an_object(b"404 page not found")


def test_paths():
    assert SECRET.path("ns", "a") == "/api/v1/namespaces/ns/secrets/a"
    assert SERVICE.path(None) == "/apis/sdservice.dev/v1alpha1/stablediffusionservices"
    assert RAY_SERVICE.path("ns", "a", "status") == "/apis/ray.io/v1/namespaces/ns/rayservices/a/status"
