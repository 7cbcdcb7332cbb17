# SPDX-License-Identifier: Apache-2.0
"""The lifetime of one Ray cluster between two heads: its nodes, Serve, and the responses of its nodes."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sd_testkit.json_types import Json
from sd_testkit.ray.pace import Pace
from sd_testkit.ray.resources import Amounts
from sd_testkit.ray.rest import applications
from sd_testkit.ray.serve import Replica, Serve

INGRESS = "ingress"
MODEL = "model"
_PICTURE = b"\x89PNG\r\n\x1a\n simulated"
_POLL_SECONDS = 0.05
_MONOTONIC_ZERO = (
    time.time() - time.monotonic()
)  # Read once, so that a start has the same time in every response.


@dataclass
class Session:
    """A Ray cluster from the start of a head to its end.

    A new head starts a new session without any data of the former one.

    If the cluster's state is persisted, the new head resumes this session instead.

    Attributes:
        head: name of the head pod.
        head_alive: whether the head's processes run. Without them nothing is scheduled, but replicas on other nodes
            continue to serve.
        head_lost: when the head's processes stopped, in monotonic seconds.
        nodes: resources of every node that joined, by pod name. The head is last.
        proxy_starts: whether the head's proxy starts with the first config.
        token: token that the dashboard requires; empty: no authentication.
    """

    head: str
    pace: Pace
    token: str
    serve: Serve
    head_alive: bool = True
    head_lost: float | None = None
    nodes: dict[str, Amounts] = field(default_factory=dict)
    proxy_starts: bool = True
    _proxied: dict[str, float] = field(default_factory=dict)

    def join(self, node: str, amounts: Amounts, address: str) -> None:
        """Add a node. Workers are filled before the head."""
        self.serve.addresses[node] = address
        head = self.nodes.pop(self.head, None)
        self.nodes[node] = amounts
        if head is not None:
            self.nodes[self.head] = head

    def leave(self, node: str) -> None:
        """Remove a node and the replicas on it."""
        self.nodes.pop(node, None)
        self.serve.replicas = [each for each in self.serve.replicas if each.node != node]
        if node == self.head:
            self.head_alive, self.head_lost = False, time.monotonic()

    def resume(self, head: str) -> None:
        """Resume with a new head that has the state of the former one: its nodes and their replicas."""
        self.head, self.head_alive, self.head_lost = head, True, None

    def has_proxy(self, node: str) -> bool:
        """Return whether a node has a proxy.

        The head has one, and so has a node with a replica (`proxy_location: EveryNode`). A proxy stays for some time after
        the last replica is gone.
        """
        if self.serve.config is None:
            return False
        if node == self.head:
            return self.proxy_starts
        now = time.monotonic()
        if any(each.node == node and each.running for each in self.serve.replicas):
            self._proxied[node] = now
        return node in self._proxied and now - self._proxied[node] < self.pace.drain

    def dashboard(self) -> web.Application:
        """Return the server for port 8265 of the head."""
        application = web.Application(middlewares=[self._guard])
        application.router.add_get("/api/serve/applications/", self._get)
        application.router.add_put("/api/serve/applications/", self._put)
        application.router.add_get("/api/version", _version)
        return application

    def proxy(self, node: str) -> web.Application:
        """Return the server for port 8000 of a node."""

        async def healthz(_: web.Request) -> web.Response:
            healthy = self.has_proxy(node)
            return web.Response(text="success" if healthy else "no proxy", status=200 if healthy else 503)

        application = web.Application()
        application.router.add_get("/-/healthz", healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/startz", self._startz)
        application.router.add_route("*", "/{path:.*}", self._draw)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        # The API server does not forward Authorization, so Ray also accepts its token from this header.
        given = {request.headers.get(name) for name in ("x-ray-authorization", "Authorization")}
        if self.token and f"Bearer {self.token}" not in given:
            return web.Response(status=401, text="Unauthorized: Missing or invalid authentication token")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _get(self, _: web.Request) -> web.Response:
        return web.json_response(applications(self.serve, time.time()))

    async def _put(self, request: web.Request) -> web.Response:
        self.serve.put(await request.json(), time.monotonic())
        return web.Response()

    async def _readyz(self, _: web.Request) -> web.Response:
        if not self.serve.running(INGRESS):
            return _no_route("/readyz")
        running, at_zero = bool(self.serve.running(MODEL)), self._at_zero()
        phase = "ready" if running else "scaled-to-zero" if at_zero else "loading"
        return web.json_response(
            {"ready": running or at_zero, "phase": phase}, status=200 if running or at_zero else 503
        )

    async def _startz(self, _: web.Request) -> web.Response:
        if not self.serve.running(INGRESS):
            return _no_route("/startz")
        models = [each for each in self.serve.replicas if each.deployment == MODEL]
        return web.json_response({"starts": {each.id: _report(each) for each in models}})

    async def _draw(self, request: web.Request) -> web.Response:
        """Return an image once a replica can generate it. The request waits for a replica that is about to start."""
        if not self.serve.routed:
            return _no_route(request.path)
        self.serve.ongoing += 1
        deadline = time.monotonic() + self._patience()
        try:
            while not (self.serve.running(INGRESS) and self.serve.running(MODEL)):
                if not self.serve.routed or time.monotonic() > deadline:
                    return web.Response(status=503, text="no replica", headers={"Retry-After": "1"})
                await asyncio.sleep(_POLL_SECONDS)
            await asyncio.sleep(self.pace.drawing)
            for each in self.serve.running(MODEL)[:1]:
                each.first_picture_seconds = each.first_picture_seconds or self.pace.drawing
        finally:
            self.serve.ongoing -= 1
        return web.Response(body=_PICTURE, content_type="image/png")

    def _at_zero(self) -> bool:
        scaling = (self.serve.deployments.get(MODEL) or {}).get("autoscaling_config") or {}
        return scaling.get("min_replicas") == 0 and self.serve.status == "RUNNING"

    def _patience(self) -> float:
        """Return the seconds that a request may wait: a limit of the live config, as the ingress reads it."""
        limits = ((self.serve.deployments.get(INGRESS) or {}).get("user_config") or {}).get("limits") or {}
        name = "cold_start_timeout_seconds" if self._at_zero() else "timeout_seconds"
        return float(limits.get(name, 120))


def _report(replica: Replica) -> Json:
    """Return the start report of a replica.

    The phases have fixed shares of the duration. A replica that starts is in phase `weights`.
    """
    began = _MONOTONIC_ZERO + replica.started
    length = (replica.ready if replica.running else time.monotonic()) - replica.started
    seconds = {"import": length / 2}
    if replica.running:
        seconds |= {"weights": length / 8, "pipeline": length / 8, "warmup": length / 4}
    return {
        "began": began,
        "seconds": seconds,
        "phase": "" if replica.running else "weights",
        "since": began + sum(seconds.values()),
        "first_picture_seconds": replica.first_picture_seconds,
    }


async def _version(_: web.Request) -> web.Response:
    return web.json_response({"ray_version": "2.60.0"})


def _no_route(path: str) -> web.Response:
    text = f"Path '{path}' not found. Ping http://.../-/routes for available routes."
    return web.Response(status=404, text=text)
