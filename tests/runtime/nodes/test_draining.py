# SPDX-License-Identifier: Apache-2.0
"""Workers and replicas that have to go end what they have begun: several Ray nodes on this machine.

A worker is the process that KubeRay starts in a pod, shell included, in the environment that our pod template gives
it; deleting the pod is the SIGTERM that the kubelet sends.
"""

import copy
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from sd_operator import local_ray, ray_process
from sd_operator.api import parse
from sd_operator.builders.pod import head_template, worker_template
from sd_operator.settings import Settings

HERE = Path(__file__).parent
LIMIT_SECONDS = 90  # far enough for a machine with other things to do
# 33 s: longer than Ray by itself gives a replica, 20 s, and a node, 30 s.
LONG = {"prompt": "a red circle", "steps": 330}
# How long a node waits for its agent: on a busy machine it would end itself with what it holds.
PATIENCE = {"RAY_agent_register_timeout_ms": "300000"}
CONFIG = {
    "gpusPerReplica": 0,
    "limits": {"timeoutSeconds": LIMIT_SECONDS, "maxSteps": 1000},
    "workerGroups": [{"name": "cpu", "maxReplicas": 4}],
}


def variables(template):
    """Environment of the Ray container of a pod."""
    (container,) = template["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


class Worker:
    """A Ray node that holds one replica."""

    def __init__(self, head, environment):
        folder = Path(tempfile.mkdtemp(prefix="sds-"))
        agent, agent_grpc, metrics = ray_process.free_ports(3)
        ray_start = (
            f"{sys.executable} -m ray.scripts.scripts start --block --num-cpus=1 --disable-usage-stats"
            f" --node-ip-address=127.0.0.1 --address={environment['RAY_ADDRESS']}"
            f" --min-worker-port=0 --max-worker-port=0 --metrics-export-port={metrics}"
            f" --dashboard-agent-listen-port={agent} --dashboard-agent-grpc-port={agent_grpc}"
        )
        with (folder / "ray-start.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["/bin/bash", "-c", "--", f"ulimit -n 65536; {ray_start}"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self._ray = ray_process.RayProcess(self._process, folder, head.token, head.dashboard)

    def delete(self):
        """Ask it to go, as the kubelet does."""
        self._process.terminate()

    def gone(self):
        return self._process.poll() is not None

    def stop(self):
        self._ray.stop()


class Cluster:
    """A head without CPUs, its workers, and the application on them."""

    def __init__(self, body, eventually):
        self._body = body
        self._eventually = eventually
        (self._port,) = ray_process.free_ports(1)
        modules = PATIENCE | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        environment = modules | variables(head_template(self._resource(), Settings()))
        self._head = ray_process.start(gpus=0, cpus=0, environment=environment)
        (gcs,) = [each for each in self._head.process.args if str(each).startswith("--port=")]
        self._environment = {
            **os.environ,
            **modules,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "RAY_ADDRESS": f"127.0.0.1:{gcs.partition('=')[2]}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._head.token,
        }
        self._dashboard = httpx.Client(
            base_url=self._head.dashboard,
            headers={"Authorization": f"Bearer {self._head.token}"},
            timeout=120,
        )
        self.url = f"http://127.0.0.1:{self._port}"
        self.ended = ExitStack()
        self.ended.callback(self._head.stop)
        self.ended.callback(self._dashboard.close)

    def _resource(self, **spec):
        body = copy.deepcopy(self._body)
        body["spec"] |= CONFIG | spec
        return parse(body)

    def worker(self):
        """One more of them."""
        resource = self._resource()
        template = worker_template(resource, Settings(), resource.spec.worker_groups[0])
        return Worker(self._head, self._environment | variables(template))

    def before_the_head_goes(self):
        """What the kubelet runs in the head's pod before it asks it to go."""
        (container,) = head_template(self._resource(), Settings())["spec"]["containers"]
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        process = subprocess.Popen(command, env=self._environment)
        self.ended.callback(process.kill)
        return process

    def apply(self, *, replicas=1, side=64):
        """PUT the Serve config; another side is another model."""
        resource = self._resource(
            replicas={"min": replicas, "max": replicas},
            warmup={"shapes": [{"width": side, "height": side}]},
        )
        config = local_ray.local_config(resource, self._port)
        config["applications"][0]["import_path"] = "slow_app:build_app"
        # Until it is taken, as KubeRay does: on a busy machine Serve may not have started in time for an answer.
        self._eventually(lambda: self._dashboard.put("/api/serve/applications/", json=config).is_success)

    def answers(self):
        """Whether Ray's dashboard does."""
        try:
            return self._dashboard.get("/api/serve/applications/").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def nodes(self):
        """Ids of the nodes that Ray holds for alive, also of such as have just been killed."""
        summary = self._dashboard.get("/nodes", params={"view": "summary"}).json()["data"]["summary"]
        return {each["raylet"]["nodeId"] for each in summary if each["raylet"].get("state") == "ALIVE"}

    def replicas(self):
        """Ids of the replicas that run, if no other is there; else none."""
        applications = self._dashboard.get("/api/serve/applications/").json()["applications"]
        if "imagine" not in applications or applications["imagine"]["status"] != "RUNNING":
            return set()
        found = applications["imagine"]["deployments"]["model"]["replicas"]
        if {each["state"] for each in found} != {"RUNNING"}:
            return set()
        return {each["replica_id"] for each in found}


@pytest.fixture(scope="module")
def cluster(root, eventually):
    cluster = Cluster(yaml.safe_load((root / "examples/quickstart.yaml").read_text()), eventually)
    with cluster.ended:
        eventually(cluster.answers)
        yield cluster


@pytest.fixture
def worker(cluster, eventually):
    """Start a worker; at the end of a test all of them are gone, and Serve knows."""
    with ExitStack() as ended:
        ended.callback(eventually, lambda: not cluster.replicas())

        def start():
            before, tried = cluster.nodes(), []

            def up():
                if not tried or tried[-1].gone():
                    tried.append(cluster.worker())
                    ended.callback(tried[-1].stop)
                return cluster.nodes() - before

            # One after another, and again where it takes longer than the 30 s that Ray gives a node, as a kubelet does.
            eventually(up)
            return tried[-1]

        yield start


@pytest.fixture
def ask(cluster):
    """Send a request that lasts longer than Ray by itself waits for, and go on."""
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=cluster.url, timeout=600) as client:

        def send(seed):
            return pool.submit(lambda: client.get("/imagine", params=LONG | {"seed": seed}).status_code)

        yield send


@pytest.fixture
def settled(cluster, eventually):
    """Wait for so many replicas, and no other."""

    def wait(count, without=frozenset()):
        eventually(lambda: len(cluster.replicas() - without) == len(cluster.replicas()) == count)
        return cluster.replicas()

    return wait


def test_replicas_that_go_end_what_lasts_longer_than_ray_waits(cluster, worker, settled, ask):
    """Another model, on fewer replicas, when all of them have just begun."""
    for _ in range(3):
        worker()
    cluster.apply(replicas=2)
    before = settled(2)
    requests = [ask(seed) for seed in range(8)]
    cluster.apply(replicas=1, side=128)
    settled(1, without=before)
    assert {each.result() for each in requests} == {200}


@pytest.mark.parametrize("place", ["beside it", "later"])
def test_a_worker_that_is_deleted_ends_what_it_has_begun(
    cluster, worker, settled, ask, load, eventually, place
):
    """And is gone by itself, its replica drawing elsewhere; a head that is deleted with it goes after it."""
    going = worker()
    cluster.apply()
    before = settled(1)
    if place == "beside it":
        worker()
    with load(cluster.url, steps=5, per_second=2) as meanwhile:
        long = ask(1)
        eventually(lambda: len(meanwhile.sent) > 4)
        going.delete()
        head = cluster.before_the_head_goes()
        eventually(lambda: head.poll() is not None)
        assert (long.done(), head.returncode) == (True, 0)
        if place == "later":
            eventually(going.gone)
            worker()
        settled(1, without=before)
        eventually(going.gone)
    assert long.result() == 200
    assert set(meanwhile.answers) == {200}
