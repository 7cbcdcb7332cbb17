# SPDX-License-Identifier: Apache-2.0
"""A service that serves, with its children and Ray's responses. Each test changes the parts it is about."""

import asyncio
import selectors
import threading
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.builders.serve_config import serve_config
from sd_operator.observe.snapshot import Application, PodView, RayServiceView, Snapshot
from sd_operator.ray.serve_state import DeploymentState, Reading, ServeState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLUSTER = "imagine-abcde"


class Scene:
    """Builds snapshots and computes conditions from them."""

    now = NOW
    cluster = CLUSTER
    head = PodView(CLUSTER, "headgroup", is_head=True, ready=True, uid="head-1")
    worker = PodView(CLUSTER, "gpu", is_head=False, ready=True, in_service=True)
    view = RayServiceView(
        up_to_date=True,
        since="2026-01-01T00:00:00Z",
        active=CLUSTER,
        active_application=Application("RUNNING"),
        endpoints=1,
    )

    def __init__(self, resource):
        self._resource = resource

    def snapshot(self, view=None, pods=None, serve=None, cluster=CLUSTER, **more):
        """Return a snapshot. `serve` is Ray's report about `cluster`."""
        reading = serve if serve is None or isinstance(serve, Reading) else Reading(serve, NOW)
        return Snapshot(
            view or self.view,
            (self.head, self.worker) if pods is None else pods,
            serve={} if reading is None else {cluster: reading},
            **more,
        )

    def serve(self, status="RUNNING", model=1, target=None, ingress=1, message="", spec=None):
        """Return the state of a Ray that runs the config of the spec."""
        application = serve_config((spec or self._resource()).spec)["applications"][0]
        configs = {each["name"]: each for each in application["deployments"]}
        target = model if target is None else target
        return ServeState(
            status,
            "",
            {
                "ingress": DeploymentState("HEALTHY", "", 1, ingress, configs["ingress"]),
                "model": DeploymentState("HEALTHY", message, target, model, configs["model"]),
            },
            application,
        )

    def conditions(self, snapshot, resource=None, now=NOW):
        """Return the conditions by type."""
        computed = status.compute(resource or self._resource(), snapshot, "image:1", Status(), now)
        return {condition.type: condition for condition in computed.conditions}

    def told(self, kind, snapshot, resource=None, now=NOW):
        """Return (status, reason) of one condition."""
        found = self.conditions(snapshot, resource, now)[kind]
        return found.status, found.reason

    @staticmethod
    def stale(state):
        """Return the same state, as an old response."""
        return Reading(state, NOW, fresh=False)

    @staticmethod
    def but(view, **changes):
        """Return a view or pod with changes."""
        return replace(view, **changes)


@pytest.fixture
def scene(resource):
    return Scene(resource)


@pytest.fixture
def http_server():
    """Answer GETs with the code and body that a function computes from the headers.

    Yield the address and the requested paths.
    """
    with ExitStack() as ended:

        def start(answer):
            asked = []

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self):
                    asked.append(self.path)
                    code, body = answer(self.headers)
                    self.send_response(code)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *_):
                    """Write no log."""

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            ended.callback(server.server_close)
            ended.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return f"http://127.0.0.1:{server.server_port}", asked

        yield start


class _NoWaiting(selectors.DefaultSelector):
    """A selector that advances a clock in place of a wait."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with virtual time.

    Its clock jumps to the next timer when idle, so hours pass in a moment and runs are repeatable.
    """

    def __init__(self):
        self._clock = _NoWaiting()
        super().__init__(self._clock)

    def time(self):
        return self._clock.now


@pytest.fixture
def in_virtual_time():
    """Run a coroutine to its end in a separate loop with virtual time."""

    def run(coroutine):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(coroutine)

    return run
