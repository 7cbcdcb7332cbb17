# SPDX-License-Identifier: Apache-2.0
"""Two operators and one Lease. Each writes its own image tag, so the RayService shows which one wrote."""

import json
import signal
import sys
import urllib.request

import pytest

from sd_operator.controller.leader_election import NAME
from sd_operator.local.ray_process import free_ports
from sd_testkit.operator_process import OperatorProcess


class Candidate:
    """An operator that stands for election as `name`."""

    def __init__(self, name, control_plane, folder, namespace):
        self.name = name
        self._process = OperatorProcess(control_plane, folder)
        self._namespace = namespace
        (self._port,) = free_ports(1)

    def start(self):
        self._process.start(
            SDSERVICE_LEADER_ELECTION="true",
            SDSERVICE_NAMESPACE=self._namespace,
            SDSERVICE_WATCH_NAMESPACES=self._namespace,
            SDSERVICE_POD_NAME=self.name,
            SDSERVICE_RUNTIME_TAG=self.name,
            SDSERVICE_PROBE_PORT=str(self._port),
        )

    def role(self):
        """What its probe says; None where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=5) as answer:
                return json.load(answer)["role"]
        except OSError:
            return None

    def send(self, number):
        self._process.process().send_signal(number)

    def exit_code(self):
        return self._process.exit_code()

    def stop(self):
        self._process.stop()

    def log(self):
        return self._process.log()


@pytest.fixture
def candidates(operator, control_plane, tmp_path, namespace):
    """Two candidates that do not run yet; the operator of the other tests rests meanwhile."""
    operator.stop()
    both = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        both.append(Candidate(name, control_plane, folder, namespace))
    yield both
    for each in both:
        sys.stdout.write(each.log()[-5000:])
        each.stop()
    operator.start()


@pytest.fixture
def holder(get):
    """Who holds the Lease."""
    return lambda: (get("lease", NAME) or {"spec": {}})["spec"].get("holderIdentity")


@pytest.fixture
def writer(get):
    """Whose tag the RayService's image has."""

    def read():
        spec = get("rayservice")["spec"]["rayClusterConfig"]
        return spec["headGroupSpec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]

    return read


@pytest.fixture
async def led(candidates, apply, service, eventually, holder, writer):
    """A service; who leads, and who stands by."""
    first, second = candidates
    first.start()
    await eventually(lambda: holder() == "a")
    second.start()
    await eventually(lambda: second.role() == "standby")
    apply(service(spec={"imagePreload": {"mode": "Disabled"}}))
    await eventually(lambda: writer() == "a")
    assert first.role() == "leader"
    return first, second


async def test_one_writes_and_the_other_takes_over_when_it_is_killed(led, eventually, holder, writer):
    first, second = led
    first.send(signal.SIGKILL)
    await eventually(lambda: writer() == "b", within=60)
    assert holder() == "b"
    assert second.role() == "leader"
    first.start()
    await eventually(lambda: first.role() == "standby")
    assert writer() == "b"


async def test_a_leader_that_ends_by_itself_gives_the_lease_up(led, eventually, holder, writer, get):
    first, second = led
    first.send(signal.SIGTERM)
    await eventually(lambda: first.exit_code() == 0)
    await eventually(lambda: writer() == "b", within=60)
    assert get("lease", NAME)["spec"]["leaseTransitions"] == 2, "to nobody, and from nobody"
    second.send(signal.SIGTERM)
    await eventually(lambda: second.exit_code() == 0)
    assert holder() == ""


async def test_a_standby_ends_by_a_signal(led, eventually):
    _, second = led
    second.send(signal.SIGTERM)
    await eventually(lambda: second.exit_code() == 0)


async def test_a_leader_that_slept_past_its_time_writes_nothing_and_ends(
    led, eventually, holder, writer, get
):
    first, second = led
    first.send(signal.SIGSTOP)
    await eventually(lambda: writer() == "b", within=60)
    generation = get("rayservice")["metadata"]["generation"]
    first.send(signal.SIGCONT)
    await eventually(lambda: first.exit_code() == 3)
    assert "b holds the Lease now" in first.log()
    assert holder() == "b"
    assert writer() == "b"
    assert get("rayservice")["metadata"]["generation"] == generation
    assert second.role() == "leader"


async def test_a_lease_that_is_edited_away_ends_its_holder_and_deleted_comes_back(
    led, eventually, holder, kubectl, namespace
):
    first, _ = led
    assert kubectl("delete", "lease", NAME, "-n", namespace).returncode == 0
    await eventually(lambda: holder() in {"a", "b"})
    if holder() == "b":  # it was faster: the first gives way
        await eventually(lambda: first.exit_code() == 3)
        return
    patch = json.dumps({"spec": {"holderIdentity": "somebody"}})
    assert kubectl("patch", "lease", NAME, "-n", namespace, "--type=merge", "-p", patch).returncode == 0
    await eventually(lambda: first.exit_code() == 3)
