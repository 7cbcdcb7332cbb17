# SPDX-License-Identifier: Apache-2.0
"""The stand-in for KubeRay passes through every recorded state of a real KubeRay 1.7.0, and through no other state.

The recording consists of samples, while a watch reports every state of the stand-in. `BETWEEN` lists the states that a
sample every 0.7 s must have missed.
"""

import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml
from kubernetes.aio import config, watch
from kubernetes.aio.client import (
    ApiClient,
    ApiException,
    Configuration,
    CoreV1Api,
    CustomObjectsApi,
    DiscoveryV1Api,
)

from sd_operator.api import parse
from sd_operator.builders.ray_service import ray_service
from sd_operator.settings import Settings
from sd_testkit.truth.recording import Recording, from_trace, slim, unexplained

TOO_MANY = 429
HOLD = "testkit.sdservice.dev/hold"
TRACE = "shared/kuberay-traces/kuberay-1.7.0.jsonl"
RECORDED = yaml.safe_load((Path(__file__).parents[1] / "data/kuberay-1.7.0.yaml").read_text())

BETWEEN = {
    "RayService": [
        "of an earlier generation$",  # the spec has changed, the next pass is to come
        "^active: -; pending: -;",  # just created
        # A pass that creates the Services counts the endpoints a moment too early; one that moves them, too late.
        "^Ready=False Initializing.*active: . RUNNING.*endpoints: 0",
        "UpgradeInProgress=False NoPendingCluster; active: 2 RUNNING .*endpoints: [01234];",
        "active: .( RUNNING ingress=HEALTHY model=HEALTHY)?; pending: 2 DEPLOYING",  # each step of the deployment
        "active: . DEPLOYING( ingress=UPDATING model=(UPDATING|HEALTHY))?; pending: -",
        "active: 2 DEPLOYING; pending: -; endpoints: 2",  # the head's proxy was up in the moment of the suspension
        "pending: . DEPLOYING( ingress=UPDATING model=(UPDATING|HEALTHY))?;",
        "Suspending=True SuspendInProgress",  # while clusters go
        "Suspended=False RayServiceResumed.*active: -; pending: -",  # before a cluster has a name
    ],
    "cluster . head": ["^-$", "^False (Unknown|ContainerCreating|ContainersNotReady|HeadPodNotFound)$"],
    "cluster .": ["provisioned -", "available 0, ready 0", "available 1, ready 0; state"],
    "(head|worker) pod": ["^Pending, not ready", "deleting$", "^gone$"],
    "serve endpoints": ["^[0123]$", "^gone$"],
}
CHANCE = {
    # A worker whose head was lost ended itself in the very moment of the suspension.
    "Running, not ready, serve=true, deleting",
    "RayCluster Normal DeletedWorkerPod",
}


class Watched:
    """Everything of one namespace, as it changes, as a Recording."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        core, custom, discovery = CoreV1Api(api), CustomObjectsApi(api), DiscoveryV1Api(api)
        ray = {"group": "ray.io", "version": "v1", "namespace": namespace}
        self.recording = Recording()
        self._lists = {
            "RayService": (custom.list_namespaced_custom_object, {**ray, "plural": "rayservices"}),
            "RayCluster": (custom.list_namespaced_custom_object, {**ray, "plural": "rayclusters"}),
            "Pod": (core.list_namespaced_pod, {"namespace": namespace}),
            "Service": (core.list_namespaced_service, {"namespace": namespace}),
            "EndpointSlice": (discovery.list_namespaced_endpoint_slice, {"namespace": namespace}),
            "Event": (core.list_namespaced_event, {"namespace": namespace}),
        }

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for kind, (listed, arguments) in self._lists.items():
                group.create_task(self._follow(kind, listed, arguments))

    async def _follow(self, kind, listed, arguments):
        # The API server refuses to watch a kind whose CRD was just written.
        while True:
            try:
                return await self._watch(kind, listed, arguments)
            except ApiException as error:
                if error.status != TOO_MANY:
                    raise
                await asyncio.sleep(0.3)

    async def _watch(self, kind, listed, arguments):
        async for event in watch.Watch().stream(listed, **arguments):
            live = event["raw_object"]
            if kind == "Event" and not live["involvedObject"]["kind"].startswith("Ray"):
                continue
            gone = event["type"] == "DELETED"
            self.recording.see(kind, live["metadata"]["name"], None if gone else slim({"kind": kind, **live}))


@pytest.fixture
async def watched(control_plane, crds, namespace):
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        watched = Watched(api, namespace)
        watched.recording.begin("before")
        task = asyncio.create_task(watched.run())
        yield watched.recording
        if task.done():
            await task  # tells why
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def user(kubectl, namespace, service):
    """What was done to the recorded RayService, done to one that the operator renders."""
    spec = {"replicas": {"min": 1, "max": 2}, "gpusPerReplica": 1, "upgrade": {"surgeWorkers": 0}}
    body = ray_service(parse(service(metadata={"namespace": namespace}, spec=spec)), Settings())
    body["spec"] |= {"excludeHeadPodFromServeSvc": False}
    return User(kubectl, namespace, body)


class User:
    def __init__(self, kubectl, namespace, body):
        self._kubectl, self._namespace, self._body = kubectl, namespace, body
        self.spec = body["spec"]
        self.config = body["spec"]["serveConfigV2"]

    def apply(self):
        sent = self._kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(self._body)
        )
        assert sent.returncode == 0, sent.stderr

    def hold(self, what):
        """Let the stand-in wait where the recorded user was faster than KubeRay."""
        self._run("annotate", "--overwrite", "rayservice", "imagine", f"{HOLD}={what}")

    def delete_head(self):
        self._run("delete", "pod", "-l", "ray.io/node-type=head", "--wait=false")

    def until_head_serves(self):
        self._run(
            "wait",
            "--for=jsonpath={.metadata.labels.ray\\.io/serve}=true",
            "pod",
            "-l",
            "ray.io/node-type=head",
        )

    def observed(self):
        found = self._kubectl("get", "rayservice", "imagine", "-n", self._namespace, "-o", "json").stdout
        live = json.loads(found)
        return live["metadata"]["generation"] == live["status"].get("observedGeneration")

    def delete(self):
        self._run("delete", "rayservice", "imagine", "--wait=false")

    def pods(self):
        return self._kubectl("get", "pods", "-n", self._namespace, "-o", "name").stdout.split()

    def _run(self, *arguments):
        done = self._kubectl(*arguments, "-n", self._namespace)
        assert done.returncode == 0, done.stderr

    def group(self):
        return self.spec["rayClusterConfig"]["workerGroupSpecs"][0]

    def containers(self):
        config = self.spec["rayClusterConfig"]
        for each in (config["headGroupSpec"], *config["workerGroupSpecs"]):
            yield each["template"]["spec"]["containers"][0]


def create(user):
    user.apply()


def delay(user):
    user.spec["rayClusterDeletionDelaySeconds"] = 1
    user.apply()


def serve_config(user):
    user.config = user.config.replace("max_replicas: 2", "max_replicas: 3")
    user.spec["serveConfigV2"] = user.config
    user.apply()


def max_replicas(user):
    user.group()["maxReplicas"] = 4
    user.apply()


def environment(user):
    for container in user.containers():
        container["env"] = [*container["env"], {"name": "A", "value": "1"}]
    user.apply()


def bad_import(user):
    user.spec["serveConfigV2"] = user.config.replace("sd_runtime.app:", "nosuchapp:")
    user.apply()


def good_import(user):
    user.spec["serveConfigV2"] = user.config
    user.apply()


def head_deleted(user):
    user.hold("head,pass")
    user.delete_head()


def invalid(user):
    user.spec["rayClusterConfig"]["headGroupSpec"]["headService"] = {"metadata": {"name": "x"}}
    user.apply()
    user.hold("head")


def valid(user):
    del user.spec["rayClusterConfig"]["headGroupSpec"]["headService"]
    user.apply()


def suspend(user):
    user.hold("application")
    user.until_head_serves()
    user.spec["suspend"] = True
    user.apply()


def resume(user):
    user.spec["suspend"] = False
    user.hold("")
    user.apply()


def delete(user):
    user.delete()


ACTIONS = {
    "create": create,
    "set rayClusterDeletionDelaySeconds 5": delay,
    "serveConfigV2 only": serve_config,
    "worker maxReplicas -> 4": max_replicas,
    "env change": environment,
    "bad import path in serveConfigV2": bad_import,
    "import path mended": good_import,
    "head pod deleted": head_deleted,
    "invalid": invalid,
    "mended": valid,
    "suspend": suspend,
    "resume": resume,
    "delete": delete,
}


def test_recording_is_that_of_the_trace(request):
    """Where the trace is beside this checkout: the project carries it in a shorter form."""
    trace = request.config.rootpath.parent / TRACE
    if not trace.exists():
        pytest.skip("the trace of a real KubeRay is not beside this checkout; its recording is used as it is")
    steps = from_trace(trace, "create").steps
    assert {step: dict(streams) for step, streams in steps.items()} == RECORDED


async def test_stand_in_is_seen_in_the_recorded_states(kuberay, user, watched, eventually):
    assert list(RECORDED) == list(ACTIONS)
    for step, action in ACTIONS.items():
        watched.begin(step)
        await asyncio.to_thread(action, user)
        if step == "mended":
            first = RECORDED[step]["RayService"][0]
            await eventually(lambda first=first: watched.last("RayService") == first)
            await asyncio.to_thread(user.hold, "application,proxy")
        if step not in {"invalid", "delete"}:  # KubeRay has not observed the one, and forgets the other
            await eventually(user.observed)
        await until_ends(watched, step, eventually)
    # Of a kind that is new the garbage collector hears with a delay: pods of a cluster that is gone may still be there.
    await eventually(lambda: not user.pods())
    problems = {name: found for name, found in differences(watched.steps) if found}
    assert not problems, yaml.safe_dump(problems, width=1000)


async def until_ends(watched, step, eventually):
    """Wait until everything is where the recorded step left it; pods go their way meanwhile."""
    ends = {stream: states[-1] for stream, states in RECORDED[step].items() if not is_loose(stream)}

    def missing():
        told = CHANCE.union(watched.steps[step].get("events", []))
        untold = [each for each in RECORDED[step].get("events", []) if each not in told]
        elsewhere = {stream: end for stream, end in ends.items() if watched.last(stream) != end}
        return elsewhere | ({"events": untold} if untold else {})

    try:
        await eventually(lambda: not missing())
    except AssertionError as error:
        seen = {stream: watched.steps[step].get(stream) for stream in missing()}
        raise AssertionError(f"{step}: expected {missing()}, seen {seen}") from error


def is_loose(stream):
    return stream == "events" or " pod " in stream


def differences(steps):
    """Problems by step and stream; of pods over the whole run, since none waits for them; events were waited for."""
    start = {}
    for step, recorded in RECORDED.items():
        for stream in sorted({*steps[step], *recorded}):
            states, seen = recorded.get(stream, []), steps[step].get(stream, [])
            if not is_loose(stream):
                yield f"{step}, {stream}", unexplained(start.get(stream), states, seen, between(stream))
                start[stream] = states[-1] if states else start.get(stream)
    for stream in sorted(
        {stream for streams in RECORDED.values() for stream in streams if " pod " in stream}
    ):
        wanted, seen = (
            [each for part in run.values() for each in part.get(stream, [])] for run in (RECORDED, steps)
        )
        expected = [each for each in wanted if each not in CHANCE]
        yield stream, unexplained(None, expected, seen, between(stream))


def between(stream):
    return [each for name, patterns in BETWEEN.items() if re.match(name, stream) for each in patterns]
