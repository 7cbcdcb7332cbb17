# SPDX-License-Identifier: Apache-2.0
"""Simulated Serve behaves like Ray 2.60. A real Ray gave the behaviour that these tests expect."""

import pytest

from sd_operator.api import parse
from sd_operator.builders.serve_config import serve_config
from sd_testkit.ray.autoscaler import Autoscaler, Plan
from sd_testkit.ray.pace import Pace
from sd_testkit.ray.rest import applications
from sd_testkit.ray.serve import Serve
from sd_testkit.ray.session import Session

NODES = {"worker": {"CPU": 1.0, "GPU": 1.0}, "head": {"CPU": 0.0}}
AT_ONCE = Pace(build=0, replica=0, looks=1)


@pytest.fixture
def config(service):
    def build(**spec):
        return serve_config(parse(service(spec=spec)).spec)

    return build


@pytest.fixture
def serve(config):
    """An application that runs."""
    found = Serve(AT_ONCE)
    found.put(config(), 0.0)
    assert statuses(found)[-1] == "RUNNING"
    return found


def statuses(serve, nodes=NODES, steps=8, start=0.0):
    """Application statuses, each different from the one before, while time goes on."""
    seen = []
    for step in range(steps):
        seen += [serve.status] if not seen or seen[-1] != serve.status else []
        serve.step(nodes, start + step, held=False)
    return seen + ([serve.status] if seen[-1] != serve.status else [])


def test_first_deployment_goes_from_deploying_to_running(config):
    serve = Serve(AT_ONCE)
    serve.put(config(), 0.0)
    assert statuses(serve) == ["DEPLOYING", "RUNNING"]
    assert [each.deployment for each in serve.running("model")] == ["model"]


def test_live_config_does_not_disturb_what_runs(serve, config):
    before = list(serve.replicas)
    serve.put(config(limits={"maxSteps": 7}), 10.0)
    assert statuses(serve, start=10.0) == ["RUNNING"]
    assert serve.replicas == before


def test_replicas_serve_on_while_another_version_cannot_be_built(serve, config):
    """Seen on Ray 2.60: requests were answered by the old version, DEPLOYING and DEPLOY_FAILED alike."""
    broken = config()
    broken["applications"][0]["import_path"] = "nosuchapp:build"
    serve.put(broken, 10.0)
    assert statuses(serve, start=10.0) == ["DEPLOYING", "DEPLOY_FAILED"]
    assert serve.running("model")
    assert serve.running("ingress")
    assert applications(serve, 20.0)["applications"]["imagine"]["deployments"] == {}


MISSING = {"preset": None, "uri": "file:///no/such/model"}
IN_PLACE = {"surgeWorkers": 0}


def test_a_new_replica_comes_first_where_there_is_room(serve, config):
    """Seen on Ray 2.60: `max_surge_percent` of the replicas that run, rounded up."""
    (before,) = serve.running("model")
    serve.put(config(model={"scheduler": "DDIM"}), 10.0)
    assert statuses(serve, start=10.0) == ["DEPLOYING"], "it waits for a node"
    assert serve.running("model") == [before]
    assert serve.pending() == [{"CPU": 1, "GPU": 1}]
    statuses(serve, {**NODES, "other": NODES["worker"]}, start=20.0)
    (after,) = serve.running("model")
    assert (serve.status, after.node) == ("RUNNING", "other")


def test_constructor_that_fails_leaves_the_old_replica_where_the_new_one_came_beside_it(serve, config):
    """By the code of Ray 2.60 (DeploymentState: a failed surge stops no old replica)."""
    (before,) = serve.running("model")
    serve.put(config(model=MISSING), 10.0)
    found = statuses(serve, {**NODES, "other": NODES["worker"]}, steps=20, start=10.0)
    assert found == ["DEPLOYING", "DEPLOY_FAILED"]
    assert serve.running("model") == [before]


def test_constructor_that_fails_leaves_no_replica_where_the_old_one_goes_first(serve, config):
    """Seen on Ray 2.60: requests hang."""
    serve.put(config(model=MISSING, upgrade=IN_PLACE), 10.0)
    assert statuses(serve, steps=20, start=10.0) == ["DEPLOYING", "DEPLOY_FAILED"]
    assert not serve.running("model")
    deployment = applications(serve, 30.0)["applications"]["imagine"]["deployments"]["model"]
    assert (deployment["status"], "file:///no/such/model" in deployment["message"]) == ("DEPLOY_FAILED", True)
    serve.put(config(), 40.0)
    assert statuses(serve, start=40.0) == ["DEPLOYING", "RUNNING"]


def test_replica_goes_with_its_node(serve):
    serve.step({"head": NODES["head"]}, 10.0, held=False)
    assert not serve.running("model")
    assert serve.pending() == [{"CPU": 1, "GPU": 1}]


def test_idle_replica_goes_after_the_delay(config):
    serve = Serve(AT_ONCE)
    scaling = {"replicas": {"min": 0, "max": 2}, "autoscaling": {"downscaleDelaySeconds": 5}}
    serve.put(config(**scaling), 0.0)
    statuses(serve, nodes={"worker": NODES["worker"], "head": {"sdservice-head": 1.0}})
    assert not serve.running("model")
    serve.ongoing = 1
    nodes = {"worker": NODES["worker"], "head": {"sdservice-head": 1.0}}
    statuses(serve, nodes=nodes, start=10.0)
    assert serve.running("model")
    serve.ongoing = 0
    statuses(serve, nodes=nodes, steps=4, start=20.0)
    assert serve.running("model")
    statuses(serve, nodes=nodes, steps=4, start=24.0)
    assert not serve.running("model")


def cluster(**group):
    template = {"spec": {"containers": [{"resources": {"limits": {"cpu": "4", "nvidia.com/gpu": "1"}}}]}}
    workers = {"groupName": "gpu", "minReplicas": 0, "maxReplicas": 2, "replicas": 0, "template": template}
    options = {"idleTimeoutSeconds": 5}
    return {"spec": {"workerGroupSpecs": [{**workers, **group}], "autoscalerOptions": options}}


def session(serve):
    found = Session("head", AT_ONCE, "", serve)
    found.join("head", NODES["head"], "10.64.0.1")
    return found


def test_worker_is_asked_for_by_a_replica_that_fits_nowhere(config):
    serve = Serve(AT_ONCE)
    serve.put(config(), 0.0)
    statuses(serve, nodes={"head": NODES["head"]})
    assert Autoscaler().plans(cluster(), session(serve), {"gpu": []}, 0.0) == [Plan(0, 1)]
    assert Autoscaler().plans(cluster(replicas=1), session(serve), {"gpu": ["w"]}, 0.0) == []
    assert Autoscaler().plans(cluster(maxReplicas=0), session(serve), {"gpu": []}, 0.0) == []


def test_idle_worker_goes_after_a_while_but_not_below_the_floor():
    serve = Serve(AT_ONCE)
    here = session(serve)
    here.join("w", NODES["worker"], "10.64.0.2")
    autoscaler = Autoscaler()
    assert autoscaler.plans(cluster(replicas=1), here, {"gpu": ["w"]}, 0.0) == []
    assert autoscaler.plans(cluster(replicas=1), here, {"gpu": ["w"]}, 6.0) == [Plan(0, 0, ("w",))]
    assert autoscaler.plans(cluster(replicas=1, minReplicas=1), here, {"gpu": ["w"]}, 7.0) == []
