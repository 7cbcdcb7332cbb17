# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes control plane on loopback: etcd, API server, controller-manager, scheduler, and kwok for nodes."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sd_testkit.cluster.audit import audit_policy
from sd_testkit.cluster.certificates import Authority, service_account_key
from sd_testkit.processes import Processes
from sd_testkit.programs import ensure

_READY_SECONDS = 180.0
_POLL_SECONDS = 0.2
_OK = 200
_GPU = "nvidia.com/gpu"
_SIMULATED = "kwok.x-k8s.io/node"

GPU_NODES = 2
GPUS_PER_NODE = 8
SIMULATED_NODES = (*(f"gpu-{number}" for number in range(GPU_NODES)), "cpu-0")


@dataclass
class ControlPlane:
    """A control plane that keeps its files, processes and logs in one folder.

    Attributes:
        folder: where its files are.
        advertised: address of this host at which pods of a real node reach the API server behind its Service. If it
            is empty, no pod calls the API server, and the server listens on loopback alone.
    """

    folder: Path
    advertised: str = ""
    address: str = field(default="", init=False)
    _etcd: str = field(default="", init=False)
    _authority: Authority = field(init=False, repr=False, compare=False)

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of a cluster administrator."""
        return self.folder / "admin.kubeconfig"

    @property
    def pod_network(self) -> Path:
        """Unix socket through which the API server dials pods. The simulation of pods listens on this socket."""
        return self.folder / "pods.sock"

    @property
    def audit_log(self) -> Path:
        """Log of the requests of operators that run as ServiceAccounts (`sd_testkit.cluster.audit`)."""
        return self.folder / "audit.log"

    @cached_property
    def processes(self) -> Processes:
        """The running processes. Another process of the testkit may stop them."""
        return Processes(self.folder)

    def start(self) -> None:
        """Start the control plane in an empty folder and wait until pods can be created.

        Raises:
            RuntimeError: a program ended, or the API server is not ready in time; the message has the end of its log.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        etcd, peer, api = free_ports(3)
        self.address, self._etcd = f"https://127.0.0.1:{api}", f"http://127.0.0.1:{etcd}"
        self._credentials()
        self._start_etcd(etcd, peer)
        self._start_api_server(etcd, api)
        self._until_ready()
        self._start_controllers()
        for node in _nodes():
            self.kubectl("create", "-f", "-", stdin=json.dumps(node))
        self._until(lambda: self.kubectl("get", "serviceaccount", "default", check=False).returncode == 0)

    def crash(self, name: str) -> None:
        """Kill etcd or the API server at once. `revive` starts it again."""
        self.processes.kill(name)

    def revive(self, name: str) -> None:
        """Start a crashed program again on the same port and data, and wait until the API server answers."""
        self.processes.restart(name)
        self._until_ready()

    def compact(self) -> None:
        """Make etcd delete all history, so that a watch from an older version is refused."""
        now = self._ask_etcd("kv/range", {"key": "AA=="})["header"]["revision"]
        self._ask_etcd("kv/compaction", {"revision": now, "physical": True})

    def _ask_etcd(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        request = urllib.request.Request(f"{self._etcd}/v3/{path}", json.dumps(body).encode())  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
            told: dict[str, Any] = json.load(answer)
        return told

    def stop(self) -> None:
        """Stop every program. etcd stops last, so that the API server can shut down cleanly."""
        self.processes.stop("kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator."""
        command = [str(ensure("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=check, timeout=120)

    def add_user(self, name: str, user: str, group: str = "") -> Path:
        """Write NAME.kubeconfig, which identifies a program as `user` of `group`.

        The control plane must have been started here.
        """
        self._authority.client(name, user, group)
        kubeconfig = self.folder / f"{name}.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(self._kubeconfig(name)))
        return kubeconfig

    def _credentials(self) -> None:
        self._authority = Authority(self.folder)
        self._authority.server("apiserver")
        service_account_key(self.folder)
        users = {
            "admin": ("admin", "system:masters"),
            "kube-controller-manager": ("system:kube-controller-manager", ""),
            "kube-scheduler": ("system:kube-scheduler", ""),
            "kwok": ("kwok", "system:masters"),
            "kubelet-client": ("kube-apiserver", "system:masters"),
        }
        for name, (user, group) in users.items():
            self.add_user(name, user, group)

    def _kubeconfig(self, name: str) -> dict[str, object]:
        files = {
            "client-certificate": str(self.folder / f"{name}.crt"),
            "client-key": str(self.folder / f"{name}.key"),
        }
        cluster = {"server": self.address, "certificate-authority": str(self.folder / "ca.crt")}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "testkit", "cluster": cluster}],
            "users": [{"name": name, "user": files}],
            "contexts": [{"name": "testkit", "context": {"cluster": "testkit", "user": name}}],
            "current-context": "testkit",
        }

    def _egress(self) -> dict[str, object]:
        """Return the egress configuration.

        A machine without privileges cannot route addresses of pods, so the socket takes their place.
        """
        transport = {"uds": {"udsName": str(self.pod_network)}}
        connection = {"proxyProtocol": "HTTPConnect", "transport": transport}
        return {
            "apiVersion": "apiserver.k8s.io/v1beta1",
            "kind": "EgressSelectorConfiguration",
            "egressSelections": [{"name": "cluster", "connection": connection}],
        }

    def _start_etcd(self, port: int, peer: int) -> None:
        client, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
        self.processes.start(
            "etcd",
            [
                ensure("etcd"),
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peers}",
                f"--initial-advertise-peer-urls={peers}",
                f"--initial-cluster=default={peers}",
                "--unsafe-no-fsync",  # No data here has to survive a crash of the machine.
                "--log-level=warn",
            ],
        )

    def _start_api_server(self, etcd: int, port: int) -> None:
        at = self.folder
        (at / "egress.yaml").write_text(yaml.safe_dump(self._egress()))
        (at / "audit.yaml").write_text(yaml.safe_dump(audit_policy()))
        self.processes.start(
            "kube-apiserver",
            [
                ensure("kube-apiserver"),
                f"--etcd-servers=http://127.0.0.1:{etcd}",
                *self._listens(),
                f"--secure-port={port}",
                "--service-cluster-ip-range=10.96.0.0/16",
                f"--cert-dir={at}",
                f"--client-ca-file={at / 'ca.crt'}",
                f"--tls-cert-file={at / 'apiserver.crt'}",
                f"--tls-private-key-file={at / 'apiserver.key'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={at / 'sa.pub'}",
                f"--service-account-signing-key-file={at / 'sa.key'}",
                "--authorization-mode=Node,RBAC",
                f"--egress-selector-config-file={at / 'egress.yaml'}",
                f"--kubelet-client-certificate={at / 'kubelet-client.crt'}",
                f"--kubelet-client-key={at / 'kubelet-client.key'}",
                "--kubelet-preferred-address-types=InternalIP",
                f"--audit-policy-file={at / 'audit.yaml'}",
                f"--audit-log-path={self.audit_log}",
                "--audit-log-mode=blocking",
                "--allow-privileged=true",
            ],
        )

    def _listens(self) -> list[str]:
        if not self.advertised:
            return ["--bind-address=127.0.0.1"]
        return ["--bind-address=0.0.0.0", f"--advertise-address={self.advertised}"]

    def _start_controllers(self) -> None:
        at = self.folder
        off = ["--secure-port=0", "--leader-elect=false"]
        self.processes.start(
            "kube-controller-manager",
            [
                ensure("kube-controller-manager"),
                f"--kubeconfig={at / 'kube-controller-manager.kubeconfig'}",
                f"--service-account-private-key-file={at / 'sa.key'}",
                f"--root-ca-file={at / 'ca.crt'}",
                "--use-service-account-credentials",
                # A late heartbeat on a busy machine would make every pod of a simulated node unready for good.
                "--node-monitor-grace-period=1h",
                # Large clusters use this value too. By default the garbage collector sends 20 requests a second, and
                # an object takes several requests.
                *("--kube-api-qps=200", "--kube-api-burst=400"),
                *off,
            ],
        )
        self.processes.start(
            "kube-scheduler",
            [ensure("kube-scheduler"), f"--kubeconfig={at / 'kube-scheduler.kubeconfig'}", *off],
        )
        self.processes.start(
            "kwok",
            [
                ensure("kwok"),
                f"--kubeconfig={at / 'kwok.kubeconfig'}",
                f"--config={Path(__file__).with_name('stages.yaml')}",
                f"--manage-nodes-with-annotation-selector={_SIMULATED}=fake",
                "--node-lease-duration-seconds=40",
                "--node-port=0",
            ],
        )

    def _until_ready(self) -> None:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")

        def ready() -> bool:
            for name in ("etcd", "kube-apiserver"):
                self.processes.check(name)
            try:
                with urllib.request.urlopen(f"{self.address}/readyz", context=context, timeout=5) as answer:  # noqa: S310 - https
                    return bool(answer.status == _OK)
            except (urllib.error.URLError, OSError):
                return False

        self._until(ready)

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                log = (self.folder / "kube-apiserver.log").read_text(errors="replace")
                raise RuntimeError(
                    f"the control plane is not ready in {_READY_SECONDS:.0f} s:\n{log[-3000:]}"
                )
            time.sleep(_POLL_SECONDS)


class GivenCluster(ControlPlane):
    """The cluster that KUBECONFIG names. The testkit neither starts nor stops it."""

    def __init__(self) -> None:
        super().__init__(Path(os.environ["KUBECONFIG"]).parent)

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig that the environment names."""
        return Path(os.environ["KUBECONFIG"])


def _nodes() -> list[dict[str, object]]:
    """Return the simulated nodes: two with GPUs and their usual taint, one without GPUs."""
    gpu = {_GPU: str(GPUS_PER_NODE)}
    taints = [{"key": _GPU, "value": "present", "effect": "NoSchedule"}]
    *with_gpus, without = SIMULATED_NODES
    return [*(simulated_node(each, gpu, taints) for each in with_gpus), simulated_node(without, {}, [])]


def simulated_node(name: str, extra: dict[str, str], taints: list[dict[str, str]]) -> dict[str, object]:
    """Return a Node that kwok simulates.

    `extra` amounts are added to those of every node, or replace them.

    A node with GPUs has the label that GPU feature discovery sets.
    """
    labels = {"kubernetes.io/hostname": name} | ({"nvidia.com/gpu.present": "true"} if _GPU in extra else {})
    amounts = {"cpu": "128", "memory": "1Ti", "pods": "1000", **extra}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {_SIMULATED: "fake"},
        },
        "spec": {"taints": taints},
        "status": {"allocatable": amounts, "capacity": amounts},
    }


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 on which no program listens."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
