# SPDX-License-Identifier: Apache-2.0
"""What the status says in the words of a real scheduler and API server, and `why` about it."""

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from sd_testkit.programs import ensure

pytestmark = pytest.mark.usefixtures("operator")

PULL_WORDS = 'failed to resolve reference "example.org/worker:none": not found'


@pytest.fixture
def first(kubectl, namespace):
    """The first object of a kind that carries labels."""

    def read(kind, labels=""):
        listed = json.loads(kubectl("get", kind, "-n", namespace, "-l", labels, "-o", "json").stdout)
        return listed["items"][0]

    return read


@pytest.fixture
def patch_status(kubectl, namespace):
    def send(kind, name, status):
        patch = json.dumps({"status": status})
        arguments = (
            "patch",
            kind,
            name,
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            patch,
        )
        result = kubectl(*arguments)
        assert result.returncode == 0, result.stderr

    return send


@pytest.fixture
def kubectl_sdservice(tmp_path, control_plane):
    """`kubectl sdservice ...` as kubectl finds and runs it."""
    plugin = tmp_path / "kubectl-sdservice"
    plugin.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "from sd_operator.cli import main; main()" "$@"\n'
    )
    plugin.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "KUBECONFIG": str(control_plane.kubeconfig),
    }

    def run(*arguments):
        command = [str(ensure("kubectl")), "sdservice", *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run


async def test_a_worker_without_a_node_is_told_with_the_schedulers_words(
    apply, service, told, eventually, kubectl_sdservice, namespace
):
    apply(service(spec={"workerGroups": [{"name": "gpu", "nodeSelector": {"zone": "nowhere"}}]}))
    await eventually(lambda: told("Ready")[:2] == ("False", "Unschedulable"))
    message = told("Ready")[2]
    assert "worker pod imagine-" in message
    assert "nodes are available" in message
    assert "didn't match Pod's node affinity/selector" in message
    await eventually(lambda: told("Schedulable")[:2] == ("False", "Unschedulable"), within=150)

    answer = kubectl_sdservice("why", "imagine", "-n", namespace)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(f"✗ imagine in namespace {namespace} is not ready: Unschedulable, for ")
    assert "didn't match Pod's node affinity/selector" in answer.stdout
    assert "→ Add a node that fits" in answer.stdout
    assert "FailedScheduling" in answer.stdout, "the scheduler's own Event"
    assert "\x1b[" not in answer.stdout, "no colours where it is piped"


async def test_an_image_that_cannot_be_pulled_is_told_with_the_registrys_words(
    apply, service, told, eventually, first, patch_status
):
    apply(service())
    await eventually(lambda: told("Ready")[:2] == ("True", "Serving"))
    worker = first("pods", "ray.io/node-type=worker")["metadata"]["name"]
    waiting = {"reason": "ErrImagePull", "message": PULL_WORDS}
    container = {
        "name": "ray-worker",
        "image": "example.org/worker:none",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
    }
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"containerStatuses": [{**container, "state": {"waiting": waiting}}], "conditions": [ready]}
    patch_status("pod", worker, status)
    await eventually(lambda: told("Ready")[:2] == ("False", "ImagePullFailed"))
    assert told("Ready")[2].endswith(f"image example.org/worker:none: {PULL_WORDS}")


async def test_a_quota_is_told_with_the_api_servers_words(
    apply, service, told, eventually, first, patch_status, kubectl, namespace
):
    """KubeRay hands on what the API server said; the stand-in does not, so its place is taken here."""
    apply(service())
    await eventually(lambda: told("Ready")[:2] == ("True", "Serving"))
    kubectl("create", "quota", "small", "--hard=pods=0", "-n", namespace)
    refused = kubectl("run", "one-more", "--image=example.org/i:1", "-n", namespace)
    words = refused.stderr.strip()
    assert "exceeded quota" in words
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateWorkerPod"}
    failure |= {"message": f"FailedCreateWorkerPod\n{words}", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    name = first("rayclusters")["metadata"]["name"]
    patch_status("raycluster", name, {"conditions": [failure]})
    await eventually(lambda: told("Schedulable")[:2] == ("False", "QuotaExceeded"))
    assert "exceeded quota: small, requested: pods=1, used: pods=" in told("Schedulable")[2]
    assert told("Ready")[:2] == ("True", "Serving"), "what runs goes on"


class Dashboard:
    """Ray's dashboard behind the head Service of a cluster: it runs what it was told, and wants the token."""

    def __init__(self):
        self.answer = {"applications": {}}
        self.tokens = set()
        dashboard = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                dashboard.tokens.add(self.headers.get("X-Ray-Authorization"))
                body = json.dumps(dashboard.answer).encode()
                self.send_response(200 if self.path == "/api/serve/applications/" else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Quiet."""

        # Where the head pod is said to be; the API server's proxy refuses loopback addresses.
        self.address = _own_address()
        self.server = ThreadingHTTPServer((self.address, 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def runs(self, serve_config, change=lambda _: None):
        """Answer as Ray does that runs the config of a RayService, with changes."""
        config = yaml.safe_load(serve_config)
        (application,) = config["applications"]
        change(application)
        deployments = {
            each["name"]: {
                "status": "HEALTHY",
                "target_num_replicas": 1,
                "deployment_config": {"health_check_period_s": 10.0, **each},
                "replicas": [{"state": "RUNNING"}],
            }
            for each in application["deployments"]
        }
        found = {
            "status": "RUNNING",
            "message": "",
            "deployed_app_config": application,
            "deployments": deployments,
        }
        self.answer = {"applications": {"imagine": found}}

    def service(self, cluster):
        """The head Service of a RayCluster as KubeRay makes it, but for the port."""
        port = {"name": "dashboard", "port": 8265, "targetPort": self.server.server_port}
        selector = {"ray.io/cluster": cluster, "ray.io/node-type": "head"}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"{cluster}-head-svc"},
            "spec": {"clusterIP": "None", "selector": selector, "ports": [port]},
        }


def _own_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; asks which address would be used
        return probe.getsockname()[0]


@pytest.fixture
def dashboard():
    running = Dashboard()
    yield running
    running.server.shutdown()
    running.server.server_close()


async def test_the_running_configuration_is_read_back_through_the_api_server(
    apply, service, told, eventually, first, get, patch_status, dashboard
):
    apply(service())
    await eventually(lambda: told("Ready")[:2] == ("True", "Serving"))
    config = get("rayservice")["spec"]["serveConfigV2"]

    def forget_a_limit(application):
        model = next(each for each in application["deployments"] if each["name"] == "model")
        model["user_config"]["limits"]["max_steps"] = 1

    dashboard.runs(config, forget_a_limit)
    head = first("pods", "ray.io/node-type=head")["metadata"]["name"]
    patch_status("pod", head, {"podIP": dashboard.address, "podIPs": [{"ip": dashboard.address}]})
    apply(dashboard.service(first("rayclusters")["metadata"]["name"]))
    await eventually(lambda: told("ConfigApplied")[:2] == ("False", "ConfigDiffers"), within=150)
    assert told("ConfigApplied")[2] == (
        "deployments.model.user_config.limits.max_steps: asked 100, Ray runs 1"
    )
    assert len(dashboard.tokens) == 1
    assert all(token.startswith("Bearer ") for token in dashboard.tokens)

    dashboard.runs(config)
    await eventually(lambda: told("ConfigApplied")[:2] == ("True", "ApplicationRunning"))
    assert told("ConfigApplied")[2] == "Ray runs the configuration of this spec."

    dashboard.answer["applications"]["imagine"]["deployments"]["model"]["replicas"] = []
    await eventually(lambda: told("Ready")[:2] == ("False", "NoReplicas"))


async def test_why_without_a_service_fails_in_one_line(namespace, kubectl_sdservice):
    answer = kubectl_sdservice("why", "nothing", "-n", namespace)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith(
        f"sdservice: there is no StableDiffusionService nothing in namespace {namespace}"
    )
