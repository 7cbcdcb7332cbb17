# SPDX-License-Identifier: Apache-2.0
"""The report of `helm test` about an operator. tests/chart/test_install.py runs it against a real one."""

import pytest

from sd_operator.api import parse
from sd_operator.cli.self_test import _suspended, judged
from sd_operator.errors import SdServiceError

CREATED = {"metadata": {"namespace": "team", "name": "self-test-1", "generation": 1}}


class Answers:
    """A cluster that gives the next answer at each look, the last one for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def get(self, kind, namespace, name):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def told(status, reason, message, generation=1):
    condition = {"type": "Accepted", "status": status, "reason": reason, "message": message}
    return {"status": {"observedGeneration": generation, "conditions": [condition]}}


def test_the_service_is_valid_and_starts_nothing():
    service = parse(_suspended("team"))
    assert service.spec.suspend
    assert service.spec.image_preload.mode == "Disabled"


async def test_an_operator_that_accepts_passes():
    unfinished = {"status": {"observedGeneration": 1, "conditions": []}}
    cluster = Answers(None, {}, unfinished, told("True", "Accepted", ""))
    assert "team" in await judged(cluster, CREATED, 30, poll_seconds=0)


async def test_what_the_operator_lacks_is_told():
    cluster = Answers(told("False", "KubeRayMissing", "install KubeRay"))
    with pytest.raises(SdServiceError, match="KubeRayMissing: install KubeRay"):
        await judged(cluster, CREATED, 30, poll_seconds=0)


async def test_an_operator_that_is_not_heard_of_fails():
    with pytest.raises(SdServiceError, match="has not acted"):
        await judged(Answers({}), CREATED, 0.05, poll_seconds=0.01)
