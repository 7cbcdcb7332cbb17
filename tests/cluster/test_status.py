# SPDX-License-Identifier: Apache-2.0
"""The status with messages of a real scheduler and API server, and the output of `why` about it."""

import asyncio
import base64
import copy
import json
import os
import subprocess
import sys
from datetime import datetime

import pytest
import yaml

from sd_testkit.programs import ensure
from sd_testkit.ray.pace import HOLD

pytestmark = pytest.mark.usefixtures("operator")

PHASES = ("node", "image", "ray", "weights", "pipeline", "compile", "warmup")
PULL_WORDS = 'failed to resolve reference "example.org/worker:none": example.org/worker:none: not found'


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
    apply, service, told, eventually
):
    apply(service(spec={"image": {"repository": "example.org/worker", "tag": "none"}}))
    await eventually(lambda: told("Ready")[:2] == ("False", "ImagePullFailed"))
    assert told("Ready")[2].endswith(f"image example.org/worker:none: {PULL_WORDS}")


REFUSALS = {
    "quota": (
        {"kind": "ResourceQuota", "spec": {"hard": {"pods": "1"}}},
        {},
        "QuotaExceeded",
        "exceeded quota: small, requested: pods=1, used: pods=1",
    ),
    "limit range": (
        {"kind": "LimitRange", "spec": {"limits": [{"type": "Pod", "max": {"memory": "32Mi"}}]}},
        {},
        "PodsRefused",
        "maximum memory usage per Pod is 32Mi",
    ),
    "pod security": (
        {"kind": "Namespace", "metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
        {"model": {"cache": {"nodeDirectory": {}}}},
        "PodsRefused",
        'violates PodSecurity "restricted:latest": restricted volume types (volume "cache" uses restricted',
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
async def test_pods_that_are_refused_are_told_with_the_api_servers_words(
    apply, service, told, eventually, namespace, what
):
    rule, more, reason, words = REFUSALS[what]
    name = namespace if rule["kind"] == "Namespace" else "small"
    apply({"apiVersion": "v1", **rule, "metadata": {"name": name, **rule.get("metadata", {})}})
    apply(service(spec={"imagePreload": {"mode": "Disabled"}, **more}))
    await eventually(lambda: told("Schedulable")[:2] == ("False", reason))
    assert words in told("Schedulable")[2]
    assert told("Ready")[0] == "False"


@pytest.fixture
def put(through_service, kubectl, namespace):
    """PUT a Serve config to Ray behind everyone's back, with Ray's token."""

    async def send(config):
        found = kubectl("get", "secret", "imagine-ray-token", "-n", namespace, "-o", "json").stdout
        token = base64.b64decode(json.loads(found)["data"]["auth_token"]).decode()
        headers = {"X-Ray-Authorization": f"Bearer {token}"}
        path = "/api/serve/applications/"
        status, body = await through_service("PUT", "imagine-head-svc:dashboard", path, config, **headers)
        assert status == 200, body

    return send


async def test_the_running_configuration_is_read_back_through_the_api_server(
    apply, service, told, eventually, get, put
):
    apply(service())
    await eventually(lambda: told("Ready")[:2] == ("True", "Serving"))
    config = yaml.safe_load(get("rayservice")["spec"]["serveConfigV2"])
    changed = copy.deepcopy(config)
    for deployment in changed["applications"][0]["deployments"]:
        if deployment["name"] == "model":
            deployment["user_config"]["limits"]["max_steps"] = 1

    await put(changed)
    await eventually(lambda: told("ConfigApplied")[:2] == ("False", "ConfigDiffers"), within=150)
    assert told("ConfigApplied")[2] == (
        "deployments.model.user_config.limits.max_steps: the spec has 100, Ray runs 1"
    )
    await put(config)
    await eventually(lambda: told("ConfigApplied")[:2] == ("True", "ApplicationRunning"), within=150)
    assert told("ConfigApplied")[2] == "Ray runs the configuration of this spec."


async def test_former_replicas_are_seen_to_answer_by_an_operator_that_was_started_since(
    serving, operator, told, eventually, get, put, kubectl, namespace
):
    """Ray names no deployment after a failed import, so the service itself is asked."""
    await serving()
    config = yaml.safe_load(get("rayservice")["spec"]["serveConfigV2"])
    broken = copy.deepcopy(config)
    broken["applications"][0]["import_path"] = "no_such_module:build_app"
    await put(broken)
    operator.stop()
    operator.start()
    await eventually(lambda: told("Ready")[2].startswith("Replicas in "))
    assert told("Ready")[:2] == ("True", "Degraded")
    assert "The Serve application is DEPLOY_FAILED" in told("Ready")[2]
    assert "No module named 'no_such_module'" in told("Ready")[2]

    workers = ("-l", "ray.io/node-type=worker", "-n", namespace)
    assert kubectl("delete", "pods", *workers, "--wait=false").returncode == 0
    await eventually(lambda: told("Ready")[:2] == ("False", "ApplicationFailed"), within=150)
    await put(config)
    await eventually(lambda: told("Ready")[:2] == ("True", "Serving"), within=150)


async def test_workers_that_answer_without_a_head_are_ready_until_ray_ends_them(
    serving, told, eventually, kubectl, namespace
):
    await serving()

    def annotate(annotation):
        arguments = ("rayservice", "imagine", "-n", namespace, annotation)
        assert kubectl("annotate", *arguments).returncode == 0

    annotate(f"{HOLD}=head")
    heads = ("-l", "ray.io/node-type=head", "-n", namespace)
    assert kubectl("delete", "pods", *heads, "--wait=false").returncode == 0
    await eventually(lambda: told("Ready")[:2] == ("True", "Degraded"))
    assert "is gone or not ready" in told("Ready")[2]
    await eventually(lambda: told("Ready")[:2] == ("False", "HeadNotReady"))
    annotate(f"{HOLD}-")
    await eventually(lambda: told("Ready")[:2] == ("True", "Serving"))


async def test_replicas_outlive_a_head_whose_state_is_on_a_volume(
    serving, told, eventually, get, kubectl, namespace
):
    await serving(head={"faultTolerance": {"store": "volume"}})

    def names(node_type):
        listed = kubectl("get", "pods", "-l", f"ray.io/node-type={node_type}", "-n", namespace, "-o", "name")
        return set(listed.stdout.split())

    heads, workers = names("head"), names("worker")
    flips = get("sdservice")["status"]["conditions"]
    (since,) = (each["lastTransitionTime"] for each in flips if each["type"] == "Ready")
    assert kubectl("delete", "-n", namespace, "--wait=false", *heads).returncode == 0
    await eventually(lambda: told("Ready")[:2] == ("True", "Degraded"))
    await eventually(lambda: names("head").isdisjoint(heads) and told("Ready")[:2] == ("True", "Serving"))
    assert names("worker") == workers
    conditions = get("sdservice")["status"]["conditions"]
    assert [each["lastTransitionTime"] for each in conditions if each["type"] == "Ready"] == [since]


async def test_why_without_a_service_fails_in_one_line(namespace, kubectl_sdservice):
    answer = kubectl_sdservice("why", "nothing", "-n", namespace)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"sdservice: namespace {namespace} has no StableDiffusionService nothing")


async def test_a_start_ends_with_its_phases_on_record(
    serving, get, eventually, through_service, kubectl_sdservice, namespace
):
    await serving()
    await eventually(lambda: get("sdservice")["status"]["coldStart"])
    found = get("sdservice")["status"]["coldStart"]
    seconds = [found[f"{phase}Seconds"] for phase in PHASES]
    assert found["totalSeconds"] == pytest.approx(sum(seconds))
    assert all(found[f"{phase}Seconds"] > 0 for phase in ("ray", "weights", "pipeline", "warmup")), found
    pod = get("pod", found["worker"])
    ready, created = (
        datetime.fromisoformat(each) for each in (found["readyAt"], pod["metadata"]["creationTimestamp"])
    )
    # Kubernetes' times are whole seconds, and a phase ends where the next begins.
    assert found["totalSeconds"] == pytest.approx((ready - created).total_seconds(), abs=2.5)
    assert "firstPictureSeconds" not in found, "nobody asked for one"

    status, body = await through_service("GET", "imagine-serve-svc:serve", "/imagine?prompt=a")
    assert status == 200, body
    await eventually(lambda: get("sdservice")["status"]["coldStart"]["firstPictureSeconds"] > 0)
    after = get("sdservice")["status"]["coldStart"]
    assert {**after, "firstPictureSeconds": None} == {**found, "firstPictureSeconds": None}

    # Off the loop, which runs the dashboards too.
    answer = await asyncio.to_thread(kubectl_sdservice, "why", "imagine", "-n", namespace)
    assert answer.returncode == 0, answer.stderr
    assert f"Last start: worker {found['worker']}, " in answer.stdout
    assert f"{found['raySeconds']:6.1f} s" in answer.stdout


async def test_a_start_under_way_is_shown_as_far_as_it_is(
    apply, service, kubectl, eventually, kubectl_sdservice, namespace
):
    apply(service(spec={"workerGroups": [{"name": "gpu", "nodeSelector": {"zone": "nowhere"}}]}))

    def workers():
        listed = kubectl("get", "pods", "-n", namespace, "-l", "ray.io/node-type=worker", "-o", "json").stdout
        return json.loads(listed)["items"]

    await eventually(workers)
    answer = kubectl_sdservice("why", "imagine", "-n", namespace)
    assert answer.returncode == 0, answer.stderr
    assert f"Worker {workers()[0]['metadata']['name']} is starting, for " in answer.stdout
    (line,) = [each for each in answer.stdout.splitlines() if each.endswith("← now")]
    assert line.startswith("  node  ▒")
