# SPDX-License-Identifier: Apache-2.0
"""The lifecycle of a release on a real control plane: install, use, test, upgrade, roll back, uninstall, install again.

Nodes are simulated, so pods run nothing. This file runs the commands of the operator's pod and of the `helm test` pod, with
their variables and the token of their ServiceAccount.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from sd_testkit.chart import CHART, helm
from sd_testkit.chart.account import token_kubeconfig
from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.cluster.crds import kuberay_crds
from sd_testkit.processes import Processes

SYSTEM, TEAM, RELEASE = "sdservice-system", "team", "sdservice"
CRD = "crd/stablediffusionservices.sdservice.dev"
POD = "sdservice-stable-diffusion-operator-self-test"
# The test's operator is outside of the cluster: names of Services mean nothing to it.
VALUES = ("--set", "replicas=2", "--set", "ray.throughApiServer=true")


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory):
    started = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    try:
        started.start()
        started.kubectl("create", "namespace", SYSTEM)
        started.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
        started.kubectl("create", "namespace", TEAM)
        theirs = {"apiVersion": "v1", "kind": "List", "items": kuberay_crds()}
        started.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(theirs))
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def release(control_plane):
    """Run a helm command about the release."""

    def run(command, *arguments, name=RELEASE, **more):
        where = ("--namespace", SYSTEM, "--timeout", "3m")
        return helm(command, name, *arguments, *where, kubeconfig=control_plane.kubeconfig, **more)

    return run


@pytest.fixture(scope="module")
def read(control_plane):
    """A live object, or None."""

    def get(kind, name, namespace=TEAM):
        found = control_plane.kubectl(
            "get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found"
        ).stdout
        return json.loads(found) if found else None

    return get


def until(condition, within=120):
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.5)
    return found


def played(pod, control_plane, folder):
    """Command and environment of a pod's container, as its kubelet would start it."""
    (container,) = pod["spec"]["containers"]
    fields = {"metadata.namespace": pod["metadata"]["namespace"], "metadata.name": pod["metadata"]["name"]}
    environment = {
        each["name"]: each.get("value", "")
        if "valueFrom" not in each
        else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container.get("env", [])
    }
    namespace, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
    environment["KUBECONFIG"] = str(token_kubeconfig(control_plane, namespace, account, folder))
    program, *arguments = [*container["command"], *container.get("args", [])]
    programs = {
        "python": [sys.executable],
        "sdservice": [sys.executable, "-c", "from sd_operator.cli import main; main()"],
    }
    return [*programs[program], *arguments], environment


@pytest.fixture(scope="module")
def operator(control_plane, tmp_path_factory):
    """What the first of the operator's pods runs; its ports are this machine's, so it gets none."""
    folder = tmp_path_factory.mktemp("operator")
    processes = Processes(folder)

    def start():
        listed = control_plane.kubectl(
            "get",
            "pods",
            "-n",
            SYSTEM,
            "-l",
            "app.kubernetes.io/name=stable-diffusion-operator",
            "-o",
            "json",
        )
        pod = json.loads(listed.stdout)["items"][0]
        command, environment = played(pod, control_plane, folder)
        ports = {"SDSERVICE_PROBE_PORT": "0", "SDSERVICE_METRICS_PORT": "0", "SDSERVICE_RESYNC_SECONDS": "2"}
        processes.start("operator", command, environment | ports)

    def stop():
        if processes.running("operator"):
            processes.stop("operator")

    try:
        yield SimpleNamespace(start=start, stop=stop)
    finally:
        stop()
        sys.stdout.write((folder / "operator.log").read_text()[-5000:])


@contextlib.contextmanager
def kubelet_of_the_test(control_plane, folder):
    """Run what the pod of `helm test` runs, and say what became of it in its status."""
    told = []

    def play():
        pod = until(
            lambda: json.loads(
                control_plane.kubectl(
                    "get", "pods", "-n", SYSTEM, "-o", "json", f"--field-selector=metadata.name={POD}"
                ).stdout
            )["items"]
        )[0]
        command, environment = played(pod, control_plane, folder)
        result = subprocess.run(
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        told.append(result)
        phase = "Failed" if result.returncode else "Succeeded"
        patch = json.dumps({"status": {"phase": phase}})
        control_plane.kubectl(
            "patch", "pod", POD, "-n", SYSTEM, "--subresource=status", "--type=merge", "-p", patch
        )

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield told
    finally:
        thread.join(250)


def accepted(live):
    conditions = (live or {}).get("status", {}).get("conditions", [])
    return any(each["type"] == "Accepted" and each["status"] == "True" for each in conditions)


def test_install_runs_in_a_restricted_namespace(release, control_plane, read):
    release("install", CHART, *VALUES, "--wait")
    assert read("deployment", "sdservice-stable-diffusion-operator", SYSTEM)["status"]["readyReplicas"] == 2
    control_plane.kubectl("wait", "--for=condition=Established", CRD, "--timeout=60s")
    assert read("pdb", "sdservice-stable-diffusion-operator", SYSTEM)["spec"]["maxUnavailable"] == 1


def test_pods_are_admitted_without_a_warning(control_plane, read):
    """What `enforce` refuses would be in the events of the ReplicaSet; `warn` says it of the template."""
    live = read("deployment", "sdservice-stable-diffusion-operator", SYSTEM)
    plain = {key: live[key] for key in ("apiVersion", "kind", "spec")}
    body = plain | {"metadata": {"name": "again", "namespace": SYSTEM}}
    control_plane.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/warn=restricted")
    told = control_plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))
    assert told.stderr == ""


def test_operator_acts_with_what_the_chart_grants(operator, control_plane, service, read):
    operator.start()
    control_plane.kubectl("create", "-n", TEAM, "-f", "-", stdin=json.dumps(service()))
    until(lambda: accepted(read("sdservice", "imagine")))
    assert read("rayservice", "imagine")


def test_helm_test_passes_and_leaves_nothing(release, control_plane, tmp_path, read, operator):
    with kubelet_of_the_test(control_plane, tmp_path) as told:
        release("test")
    assert "the operator acts on services in namespace sdservice-system" in told[0].stdout
    left = control_plane.kubectl(
        "get", "pod,role,rolebinding,serviceaccount,sdservice", "-n", SYSTEM, "-o", "name"
    ).stdout
    assert "self-test" not in left


def test_helm_test_fails_where_kuberay_is_missing(release, control_plane, tmp_path, operator):
    control_plane.kubectl("delete", "crd", "rayservices.ray.io", "--wait")
    with kubelet_of_the_test(control_plane, tmp_path) as told:
        assert release("test", check=False).returncode != 0
    assert "KubeRayMissing" in told[0].stderr
    theirs = {"apiVersion": "v1", "kind": "List", "items": kuberay_crds()}
    control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(theirs))


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """The next version of the chart, whose CRD has one field more."""
    folder = Path(shutil.copytree(CHART, tmp_path_factory.mktemp("newer") / "chart"))
    (file,) = (folder / "files/crds").iterdir()
    crd = yaml.safe_load(file.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["novelty"] = {"type": "string"}
    file.write_text(yaml.safe_dump(crd))
    about = (folder / "Chart.yaml").read_text()
    (folder / "Chart.yaml").write_text(
        about.replace("version: 0.1.0", "version: 0.1.1").replace("appVersion: 0.1.0", "appVersion: 0.1.1")
    )
    return folder


def has_novelty(read):
    live = read("crd", CRD.partition("/")[2])
    spec = live["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return "novelty" in spec["properties"]


def identity(read):
    return [read(kind, "imagine")["metadata"]["uid"] for kind in ("sdservice", "rayservice")]


def test_upgrade_takes_the_crd_along_and_touches_no_service(release, newer, read, operator):
    until(lambda: read("rayservice", "imagine"))
    before = identity(read)
    release("upgrade", newer, *VALUES, "--wait")
    assert has_novelty(read)
    image = read("deployment", "sdservice-stable-diffusion-operator", SYSTEM)["spec"]["template"]["spec"][
        "containers"
    ][0]["image"]
    assert image.endswith(":0.1.1")
    assert identity(read) == before


def test_rollback_brings_the_former_crd_back_and_touches_no_service(release, read):
    before = identity(read)
    release("rollback", "1", "--wait")
    assert not has_novelty(read)
    assert identity(read) == before


def test_uninstall_keeps_kind_and_services(release, control_plane, read, operator):
    before = identity(read)
    operator.stop()
    release("uninstall", "--wait")
    assert read("crd", CRD.partition("/")[2])
    assert identity(read) == before
    left = control_plane.kubectl(
        "get", "clusterrole,clusterrolebinding,role,rolebinding,deployment,networkpolicy,priorityclass", "-A",
        "-l", "app.kubernetes.io/instance=sdservice", "-o", "name",
    )  # fmt: skip
    assert left.stdout == ""


def test_installing_again_takes_the_kept_crd(release, read):
    release("install", CHART, *VALUES)
    assert read("crd", CRD.partition("/")[2])["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    release("uninstall", "--wait")


def test_another_release_takes_it_when_told_so(release):
    """An administrator's `kubectl apply` of the CRD is taken over in the same way."""
    refused = release("install", CHART, name="other", check=False)
    assert "invalid ownership metadata" in refused.stderr
    release("install", CHART, "--take-ownership", name="other")
