# SPDX-License-Identifier: Apache-2.0
import pytest
from aiohttp import ClientSession

from sd_operator.controller import health
from sd_operator.controller.health import Health
from sd_operator.local.ray_process import free_ports


class Aged:
    """Leadership and resync of given ages in seconds."""

    def __init__(self, seconds, leads):
        self._seconds = seconds
        self._leads = leads

    def held(self):
        return self._leads

    def age_seconds(self):
        return self._seconds

    attempt_age_seconds = age_seconds

    def is_complete(self):
        return self._seconds >= 0

    is_known = is_complete


@pytest.mark.parametrize(
    ("leads", "seconds", "alive"),
    [(True, 959, True), (True, 961, False), (False, 659, True), (False, 661, False)],
)
def test_a_leader_is_judged_by_its_lists_and_a_standby_by_its_looks_at_the_lease(leads, seconds, alive):
    never = Aged(float("nan"), leads)
    leadership, resync = (never, Aged(seconds, leads)) if leads else (Aged(seconds, leads), never)
    told, answer = Health(leadership, resync, 300).report()
    assert told is alive
    assert answer["role"] == ("leader" if leads else "standby")


@pytest.mark.parametrize(("alive", "status"), [(True, 200), (False, 503)])
async def test_the_probe_gets_it_over_http(alive, status):
    (port,) = free_ports(1)
    async with (
        health.serving(port, lambda: (alive, {"role": "leader"}), lambda: not alive),
        ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/healthz") as answer,
    ):
        assert answer.status == status
        assert await answer.json() == {"role": "leader"}
        async with session.get(f"http://127.0.0.1:{port}/readyz") as readiness:
            assert readiness.status == (503 if alive else 200)


async def test_port_zero_serves_nothing():
    async with health.serving(0, lambda: (True, {}), lambda: True):
        pass


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize(("seconds", "ready"), [(-1, False), (0, True)], ids=["unheard", "heard"])
def test_it_is_ready_once_the_api_server_has_answered_what_it_works_by(leads, seconds, ready):
    never = Aged(float("nan"), leads)
    leadership, resync = (never, Aged(seconds, leads)) if leads else (Aged(seconds, leads), never)
    assert Health(leadership, resync, 300).is_ready() is ready
