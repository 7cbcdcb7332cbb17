# SPDX-License-Identifier: Apache-2.0
"""Several Ray nodes on this machine, with an application whose engine only waits.

Deletion of a worker sends SIGTERM, as the kubelet does to a pod. A kill simulates a machine that fails.
"""

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from sd_operator.api import parse
from sd_operator.builders.ray_service import ray_service
from sd_operator.builders.serve_config import serve_config
from sd_operator.naming import APPLICATION
from sd_operator.settings import Settings
from sd_testkit.cluster.ray_host import RayHost

LIMIT_SECONDS = 90  # Long enough for a machine with other work.
# The request lasts 33 s. By default Ray gives a replica 20 s and a node 30 s to finish.
LONG = {"prompt": "a red circle", "steps": 330}
CONFIG = {
    "gpusPerReplica": 0,
    # Every request without a running replica waits, even if a slow machine takes long to start one.
    "limits": {"timeoutSeconds": LIMIT_SECONDS, "maxSteps": 1000, "maxQueuedRequests": 1000},
    "workerGroups": [{"name": "cpu", "maxReplicas": 4}],
}


class Cluster:
    """A head without CPUs, and the application of the quick start."""

    def __init__(self, body, eventually):
        self._body = body
        self._eventually = eventually
        modules = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self.host = RayHost(ray_service(self._resource(), Settings()), {"PYTHONPATH": modules})
        self.url = self.host.url

    def _resource(self, **spec):
        body = copy.deepcopy(self._body)
        body["spec"] |= CONFIG | spec
        return parse(body)

    def apply(self, *, replicas=1, side=64):
        """PUT the Serve config. A different image side makes a different model."""
        warmup = {"shapes": [{"width": side, "height": side}]}
        resource = self._resource(replicas={"min": replicas, "max": replicas}, warmup=warmup)
        config = serve_config(resource.spec) | {"proxy_location": "HeadOnly"}
        config["applications"][0]["import_path"] = "slow_app:build_app"
        # Repeat the PUT until Serve accepts it, as KubeRay does. On a busy machine Serve may not have started in
        # time.
        self._eventually(lambda: self.host.apply(config))

    def clear(self):
        """Remove the application.

        The replica would otherwise start on the next worker and take the place of another test's.
        """
        self._eventually(lambda: self.host.apply({"applications": []}))
        self._eventually(lambda: not self.told())

    def told(self):
        """Return Serve's report about the application."""
        return self.host.application(APPLICATION)

    def replicas(self):
        """Return process ids of the replicas by replica id, if all of them run; otherwise nothing."""
        told = self.told()
        if told.get("status") != "RUNNING":
            return {}
        found = told["deployments"]["model"]["replicas"]
        if {each["state"] for each in found} != {"RUNNING"}:
            return {}
        return {each["replica_id"]: each["pid"] for each in found}


@pytest.fixture(scope="module")
def cluster(root, eventually):
    cluster = Cluster(yaml.safe_load((root / "examples/quickstart.yaml").read_text()), eventually)
    with ExitStack() as ended:
        heads = []

        def up():
            # Start again after an exit, as a kubelet does: another program may have taken one of its ports.
            if not heads or heads[-1].gone():
                heads.append(cluster.host.head())
                ended.callback(heads[-1].stop)
            return cluster.host.answers()

        eventually(up)
        yield cluster


@pytest.fixture
def worker(cluster, eventually):
    """Start a worker. At the end of a test, all workers and the application are removed."""
    with ExitStack() as ended:
        ended.callback(cluster.clear)

        def start():
            before, tried = cluster.host.nodes(), []

            def up():
                if not tried or tried[-1].gone():
                    tried.append(cluster.host.worker())
                    ended.callback(tried[-1].stop)
                return cluster.host.nodes() - before

            # Workers start one after another. A worker that exceeds Ray's limit of 30 s for a node is started again,
            # as a kubelet does.
            eventually(up)
            return tried[-1]

        yield start


@pytest.fixture
def ask(cluster):
    """Send a request that lasts longer than Ray's own waiting time, and do not wait for it."""
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=cluster.url, timeout=600) as client:

        def send(seed):
            return pool.submit(client.get, "/imagine", params=LONG | {"seed": seed})

        yield send


@pytest.fixture
def settled(cluster, eventually):
    """Wait until exactly this number of replicas runs."""

    def wait(count, without=frozenset()):
        def is_settled():
            found = cluster.replicas().keys()
            return len(found - without) == len(found) == count

        eventually(is_settled, lambda: (cluster.host.nodes(), cluster.told()))
        return cluster.replicas().keys()

    return wait
