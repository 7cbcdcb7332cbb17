# SPDX-License-Identifier: Apache-2.0
"""The quick start on a real Ray on this machine. The code of `sdservice run` starts it once for all tests."""

import asyncio
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

from sd_operator.api import parse
from sd_operator.local import ray_process, serving
from sd_operator.ray import dashboard as ray_dashboard

_MOST_REQUESTS = 240


class RunningService:
    """A local service with its own event loop, since its tests are plain functions."""

    def __init__(self, body):
        self.body = body
        self.resource = parse(body)
        (self.port,) = ray_process.free_ports(1)
        self.phases = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()
        self.local = None

    def do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(600)

    def start(self):
        self._thread.start()
        service = serving.serve(self.resource, self.port, self.phases.append)
        self.local = self.do(self._stack.enter_async_context(service))

    def stop(self):
        self.do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def apply(self, config):
        """PUT a Serve config, and wait until it runs."""
        self.put(config)

        async def until_running():
            async with self._dashboard() as dashboard, asyncio.timeout(300):
                while (await dashboard.application()).status != "RUNNING":  # noqa: ASYNC110 - Serve is asked
                    await asyncio.sleep(0.3)

        self.do(until_running())

    def put(self, config):
        """PUT a Serve config, without a wait for the result."""

        async def send():
            async with self._dashboard() as dashboard:
                await dashboard.apply(config)

        self.do(send())

    def application(self):
        """Return the state of the application, as the operator reads it."""

        async def read():
            async with self._dashboard() as dashboard:
                return await dashboard.application()

        return self.do(read())

    def _dashboard(self):
        return ray_dashboard.connect(self.local.ray.dashboard, self.local.ray.token)

    def replicas(self, deployment="model"):
        """Return the replicas of a deployment, as Serve's dashboard reports them."""
        ray = self.local.ray
        answer = httpx.get(
            f"{ray.dashboard}/api/serve/applications/", headers={"Authorization": f"Bearer {ray.token}"}
        )
        return answer.json()["applications"]["imagine"]["deployments"][deployment]["replicas"]


class Load:
    """Requests for small images at fixed times, with or without earlier responses. Their number is limited."""

    def __init__(self, url, steps, per_second):
        limits = httpx.Limits(max_connections=_MOST_REQUESTS)
        self._client = httpx.Client(base_url=url, timeout=600, limits=limits)
        self._pool = ThreadPoolExecutor(_MOST_REQUESTS)
        self._query = {"prompt": "a red circle", "steps": steps}
        self._pause = 1 / per_second
        self._stop = threading.Event()
        self.sent = []
        self._thread = threading.Thread(target=self._run)
        self.answers = []

    def _run(self):
        for seed in range(_MOST_REQUESTS):
            self.sent.append(self._pool.submit(self._ask, seed))
            if self._stop.wait(self._pause):
                return

    def _ask(self, seed):
        try:
            return self._client.get("/imagine", params=self._query | {"seed": seed}).status_code
        except httpx.HTTPError as error:
            return repr(error)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.answers = [each.result() for each in self.sent]
        self._pool.shutdown()
        self._client.close()


@pytest.fixture(scope="session")
def load():
    """Put load on a URL while a block runs. The status codes of its responses are available afterwards."""
    return Load


@pytest.fixture(scope="session")
def running(root):
    service = RunningService(yaml.safe_load((root / "examples/quickstart.yaml").read_text()))
    service.start()
    yield service
    service.stop()


@pytest.fixture
def apply_limits(running):
    """Apply other limits to both deployments of the quick start. The original limits return at the end."""

    def apply(**limits):
        whole = serving.local_config(running.resource, running.port)
        for deployment in whole["applications"][0]["deployments"]:
            live = deployment["user_config"]
            deployment["user_config"] = {**live, "limits": {**live["limits"], **limits}}
        running.apply(whole)

    yield apply
    apply()


@pytest.fixture(scope="session")
def http(running):
    with httpx.Client(base_url=running.local.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def eventually():
    """Wait until a condition holds.

    The wait can take minutes, since a replica may have to load. `told` reports the actual state.
    """

    def wait(condition, told=lambda: None):
        deadline = time.monotonic() + 400
        while not condition():
            assert time.monotonic() < deadline, told()
            time.sleep(0.5)

    return wait


@pytest.fixture(scope="session")
def difference():
    """Return the largest difference of two PNG files in any pixel and channel, 0 to 255. 1 or 2 is rounding."""

    def largest(first, second):
        one, other = (np.asarray(Image.open(io.BytesIO(each))).astype(int) for each in (first, second))
        return np.abs(one - other).max()

    return largest


@pytest.fixture(scope="session")
def looks():
    """Measure the content of a PNG file with one shape on a plain background, from its pixels alone.

    Returns:
        background: mean colour of the border (r, g, b), 0 to 255.
        shape: median colour of what differs from it.
        fill: share of the shape's bounding box that it fills; pi/4 for a circle, 1 for a square.
    """

    def look(png):
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        background = np.median(border, axis=0)
        inside = np.linalg.norm(pixels - background, axis=2) > 100
        rows, columns = np.where(inside.any(axis=1))[0], np.where(inside.any(axis=0))[0]
        box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        return background, np.median(pixels[inside], axis=0), inside.sum() / box

    return look
