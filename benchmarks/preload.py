# SPDX-License-Identifier: Apache-2.0
"""Measure the effect of image preload on a real node: the start of a worker, and the gap of an upgrade with one GPU.

    .venv/bin/python benchmarks/preload.py [--rounds N] [--packages NAME ...] [--output FILE]

The benchmark needs root (see `make node`). API server, scheduler, kubelet, containerd, runc, the registry (on loopback)
and the operator are real. The worker's pod is made from the RayService's template and runs its image: a static busybox
with the named packages of this environment as its large layer. The GPU, the head with its node, and Ray in the worker are
simulated. The worker sleeps in place of `ray start`, and ends at once on its signal. So imports, weights and draining,
which preload does not change, are left out.

Each round measures two things. The image is not on the node, unless stated otherwise.

- start: the time from `kubectl apply` until the worker's container runs. It is measured cold, and with the image kept on
  the node by the preload of another service, which is at zero replicas. `imagePreload.mode` is External, so that the
  operator reports the images that it finds on the node;
- gap: an upgrade to another image while four requests arrive per second. The node has one GPU, so the person who upgrades
  deletes the old cluster once KubeRay has made the new one. The gap is the time from the last answer of the old cluster
  to the first answer of the new one. `imagePreload.mode` is Disabled, then Required.

The script prints a table: medians in seconds, the messages of the kubelet, and the ratios.
"""

import argparse
import asyncio
import copy
import importlib.util
import itertools
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, ApiException, Configuration

from sd_testkit.node import NODE, obstacle
from sd_testkit.node.cluster import RealCluster, real_cluster
from sd_testkit.node.layers import compressed, variant

Json = dict[str, Any]

EXAMPLE = Path(__file__).parent.parent / "examples/quickstart.yaml"
PATH = "/api/v1/namespaces/default/services/imagine-serve-svc:serve/proxy/imagine"
LIMIT_SECONDS = 900
WORKERS = "ray.io/node-type=worker"
PRESENT = "already present on machine"


class Bench:
    """The cluster, and images that are pushed when they are needed."""

    def __init__(self, cluster: RealCluster, layer: Path) -> None:
        self.cluster = cluster
        self.figures: dict[str, list[float]] = defaultdict(list)
        self.words: dict[str, str] = {}
        self._layer = layer
        self._pushed = 0

    async def round(self) -> None:
        """Measure every figure once."""
        first, second, third = [await self.push() for _ in range(3)]
        await self.start("start, cold", first)
        await self.delete("imagine")
        self.cluster.node.containerd.remove_image(first)
        self.apply(service(first, "Opportunistic", name="keeper", replicas={"min": 0, "max": 1}))
        await self.until(lambda: self.condition("keeper", "ImagesPreloaded") == "True")
        await self.start("start, preloaded", first)
        await self.delete("keeper")
        await self.until(lambda: self.condition("imagine", "Ready") == "True")
        await self.gap("gap, Disabled", second, "Disabled")
        await self.gap("gap, Required", third, "Required")
        await self.delete("imagine")
        for each in (first, second, third):
            self.cluster.node.containerd.remove_image(each)

    async def start(self, name: str, image: str) -> None:
        """Measure the time from apply to the worker's container."""
        began = time.monotonic()
        self.apply(service(image, "External"))
        await self.until(lambda: self.worker(image) is not None)
        self.note(name, time.monotonic() - began, image)
        await self.until(lambda: "totalSeconds" in self.status("imagine").get("coldStart", {}))
        seconds = self.status("imagine")["coldStart"]["imageSeconds"]
        (verdict,) = [c for c in self.status("imagine")["conditions"] if c["type"] == "ImagesPreloaded"]
        words = f"coldStart.imageSeconds {seconds}; ImagesPreloaded {verdict['reason']}: {verdict['message']}"
        self.words[f"{name}: the operator"] = words
        print(words, flush=True)

    async def gap(self, name: str, image: str, mode: str) -> None:
        """Measure an upgrade while requests arrive."""
        began = time.monotonic()
        async with answers(self.cluster) as answered:
            await self.until(lambda: bool(answered))
            self.apply(service(image, mode))
            await self.until(lambda: self.clusters()[1] != "")
            old = self.clusters()[0]
            self.kubectl("delete", "raycluster", old, "--wait=false")
            await self.until(lambda: self.worker(image) is not None)
            came = time.monotonic()
            await self.until(lambda: answered[-1] > came)
            self.figures[f"{name}: upgrade in all"].append(answered[-1] - began)
        self.note(name, max(after - before for before, after in itertools.pairwise(answered)), image)
        await self.until(lambda: self.condition("imagine", "Ready") == "True")

    def note(self, name: str, seconds: float, image: str) -> None:
        """Record a figure, and the message of the kubelet when it started the worker."""
        self.figures[name].append(seconds)
        uid = (self.worker(image) or {})["metadata"]["uid"]
        events = self.listed("events", "--field-selector", f"involvedObject.uid={uid},reason=Pulled")
        self.words[name] = events[0]["message"]
        print(f"{name}: {seconds:.1f} s; {self.words[name]}", flush=True)

    async def push(self) -> str:
        """Make another image with the same layer and another digest."""
        self._pushed += 1
        with tempfile.TemporaryDirectory() as folder:
            layer = Path(folder) / "layer.tar.gz"
            await asyncio.to_thread(variant, layer, self._layer, str(self._pushed))
            return await asyncio.to_thread(self.cluster.registry.push, f"worker:{self._pushed}", [layer])

    async def delete(self, name: str) -> None:
        """Delete a service, and wait until its pods are gone."""
        self.kubectl("delete", "sdservice", name)
        await self.until(lambda: not self.listed("pods", "-l", f"sdservice.dev/name={name}"))

    def worker(self, image: str) -> Json | None:
        """Return the worker of this image whose container runs."""
        for pod in self.listed("pods", "-l", WORKERS):
            statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
            if pod["spec"]["containers"][0]["image"] == image and "running" in statuses[0].get("state", {}):
                return pod
        return None

    def clusters(self) -> tuple[str, str]:
        """Return the names of the active and the pending RayCluster; a name is empty where there is none."""
        (live,) = self.listed("rayservice", "--field-selector", "metadata.name=imagine")
        status = live.get("status") or {}
        active, pending = (
            str((status.get(f"{side}ServiceStatus") or {}).get("rayClusterName") or "")
            for side in ("active", "pending")
        )
        return active, pending

    def condition(self, name: str, kind: str) -> str:
        """Return the status of a condition, for the latest spec."""
        conditions = self.status(name).get("conditions", [])
        return next((each["status"] for each in conditions if each["type"] == kind), "")

    def status(self, name: str) -> Json:
        """Return the status of a service, for the latest spec; empty until the operator has observed it."""
        (live,) = self.listed("sdservice", "--field-selector", f"metadata.name={name}")
        status: Json = live.get("status") or {}
        return status if status.get("observedGeneration") == live["metadata"]["generation"] else {}

    def apply(self, body: Json) -> None:
        """Create or change an object."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def listed(self, kind: str, *selectors: str) -> list[Json]:
        """Return objects in the default namespace."""
        items: list[Json] = json.loads(self.kubectl("get", kind, *selectors, "-o", "json"))["items"]
        return items

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Its output."""
        return self.cluster.control_plane.kubectl("-n", "default", *arguments, stdin=stdin).stdout

    async def until(self, condition: Callable[[], bool]) -> None:
        """Poll a few times a second until a condition is true."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


def service(image: str, mode: str, name: str = "imagine", **spec: Any) -> Json:
    """Return a service with its head on a simulated node and one worker on the real node."""
    body: Json = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text()))
    body["metadata"]["name"] = name
    repository, _, tag = image.rpartition(":")
    small = {"cpu": "50m", "memory": "64Mi"}
    body["spec"] |= {
        "image": {"repository": repository, "tag": tag},
        "imagePreload": {"mode": mode},
        "head": {"nodeSelector": {"kubernetes.io/hostname": "cpu-0"}, "resources": small},
        "workerGroups": [
            {"name": "gpu", "nodeSelector": {"kubernetes.io/hostname": NODE}, "resources": small}
        ],
        **spec,
    }
    return body


@asynccontextmanager
async def answers(cluster: RealCluster) -> AsyncIterator[list[float]]:
    """Send a request every quarter of a second; collect the times at which a request received its picture."""
    moments: list[float] = []
    configuration = Configuration()
    await config.load_kube_config(str(cluster.control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:

        async def ask() -> None:
            while True:
                request = await api.param_serialize("GET", PATH, header_params={"Accept": "*/*"})
                try:
                    answer = await api.call_api(*request, _request_timeout=5)
                    if answer.status == HTTPStatus.OK:
                        moments.append(time.monotonic())
                except (ApiException, TimeoutError, OSError):
                    pass
                await asyncio.sleep(0.25)

        asking = asyncio.create_task(ask())
        try:
            yield moments
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


def table(bench: Bench, size: int) -> str:
    """Return a table of the figures, and the main ratios."""
    median = {name: statistics.median(values) for name, values in bench.figures.items()}
    lines = ["| | seconds | the kubelet's words |", "|---|---|---|"]
    lines += [f"| {name} | {seconds:.1f} | {bench.words.get(name, '')} |" for name, seconds in median.items()]
    start = median["start, cold"] / median["start, preloaded"]
    gap = median["gap, Disabled"] / median["gap, Required"]
    lines += ["", f"layers of an image: {size / 1e6:.0f} MB; ratios: start {start:.1f}, gap {gap:.1f}"]
    return "\n".join(lines)


async def measure(rounds: int, packages: list[str], folder: Path) -> str:
    """Run every round; return the table."""
    layer = folder / "layer.tar.gz"
    spec = importlib.util.find_spec(packages[0])
    if spec is None or spec.origin is None:
        raise SystemExit(f"no package {packages[0]} in this environment")
    compressed(layer, Path(spec.origin).parents[1], packages)
    async with real_cluster(folder / "cluster", gpus=1) as cluster:
        bench = Bench(cluster, layer)
        for _ in range(rounds):
            await bench.round()
        return table(bench, cluster.registry.size("worker:1"))


def main() -> None:
    """Measure, print, and write the table to the output file, if one is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--packages", nargs="+", default=["torch", "triton"])
    parser.add_argument("--output", type=Path, help="file for the table")
    arguments = parser.parse_args()
    if found := obstacle():
        raise SystemExit(found)
    with tempfile.TemporaryDirectory() as folder:
        text = asyncio.run(measure(arguments.rounds, arguments.packages, Path(folder)))
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
