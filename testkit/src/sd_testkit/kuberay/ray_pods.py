# SPDX-License-Identifier: Apache-2.0
"""Ray pods as KubeRay creates them for a real Ray: its commands, variables, probes and containers around a template (pure).

Source: https://github.com/ray-project/kuberay v1.7.0, ray-operator/controllers/ray/common/pod.go, for a RayService
with token authentication and the autoscaler of version 2, on Ray 2.53 or newer. Left out: Redis, TLS, the history
server, accelerators that KubeRay knows by name, and fields that only feed Ray's usage statistics.
"""

import re

from sd_testkit.json_types import Json
from sd_testkit.kuberay.objects import labelled

_PORT = "6379"
_SHELL = ["/bin/bash", "-c", "--"]
_WGET = "wget --tries 1 -T {timeout} -q -O- http://localhost:{port}/{path} | grep success"
_AGENT_PORT = 52365
_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_AUTOSCALE = (
    "ray kuberay-autoscaler --cluster-name $(RAY_CLUSTER_NAME) --cluster-namespace $(RAY_CLUSTER_NAMESPACE)"
)
_WAIT_GCS = """
SECONDS=0
while true; do
  if (( SECONDS <= 120 )); then
    if ray health-check --address {address} > /dev/null 2>&1; then
      echo "GCS is ready."
      break
    fi
    echo "$SECONDS seconds elapsed: Waiting for GCS to be ready."
  else
    if ray health-check --address {address}; then
      echo "GCS is ready. Any error messages above can be safely ignored."
      break
    fi
    echo "$SECONDS seconds elapsed: Still waiting for GCS to be ready."
  fi
  sleep 5
done
"""


def ray_pod(cluster: Json, node_type: str, group: Json) -> Json:
    """Return a pod of the head group or of a worker group, in which Ray starts."""
    body = labelled(cluster, node_type, group)
    spec = body["spec"]
    container = spec["containers"][0]
    token = _token(cluster)
    if node_type == "head":
        spec.setdefault("serviceAccountName", service_account(cluster))
        spec["containers"].append(_autoscaler(cluster, container, token))
        container["env"] = [*container.get("env", []), {"name": "RAY_enable_autoscaler_v2", "value": "true"}]
        _share_logs(spec)
    else:
        spec["initContainers"] = [*spec.get("initContainers", []), _wait_gcs(cluster, container, token)]
    command = _ray_start(cluster, node_type, group, container)
    container |= {
        "command": _SHELL,
        "args": [f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {command}"],
        "env": [*container.get("env", []), *token, *_variables(cluster, node_type, command)],
        "ports": [*container.get("ports", []), {"name": "metrics", "containerPort": 8080}],
        **_probes(node_type),
    }
    spec["restartPolicy"] = "Never"
    return body


def service_account(cluster: Json) -> str:
    """Return the name of the head's ServiceAccount, which the autoscaler uses."""
    named = cluster["spec"]["headGroupSpec"]["template"]["spec"].get("serviceAccountName")
    return str(named or cluster["metadata"]["name"])


def token_secret(cluster: Json) -> str:
    """Return the name of the Secret with Ray's token."""
    options = cluster["spec"].get("authOptions") or {}
    return str(options.get("secretName") or cluster["metadata"]["name"])


def head_address(cluster: Json) -> str:
    """Return the host name of the head's Service, which workers dial."""
    metadata = cluster["metadata"]
    return f"{metadata['name']}-head-svc.{metadata['namespace']}.svc.cluster.local"


def _ray_start(cluster: Json, node_type: str, group: Json, container: Json) -> str:
    parameters = dict(group.get("rayStartParams") or {})
    if node_type == "head":
        parameters |= {"no-monitor": "true"}
        parameters.setdefault("dashboard-host", "0.0.0.0")  # noqa: S104 - the pod's
    else:
        parameters.setdefault("address", f"{head_address(cluster)}:{_PORT}")
    parameters.setdefault("metrics-export-port", "8080")
    parameters.setdefault("dashboard-agent-listen-port", str(_AGENT_PORT))
    parameters["block"] = "true"
    limits = container.get("resources", {}).get("limits", {})
    if "memory" in limits:
        parameters.setdefault("memory", str(_bytes(limits["memory"])))
    flags = (
        f" --{name} " if value == "true" else f" --{name}={value} "
        for name, value in sorted(parameters.items())
    )
    return f"ray start {'--head ' if node_type == 'head' else ''}{''.join(flags)}"


def _bytes(quantity: str) -> int:
    found = re.fullmatch(r"(\d+)([kMGT]i?|Ki)?", quantity)
    if found is None:
        raise ValueError(f"a memory limit of {quantity}: not an integer with a unit")
    return int(found[1]) * _UNITS[found[2] or ""]


def _variables(cluster: Json, node_type: str, command: str) -> list[Json]:
    address = "127.0.0.1" if node_type == "head" else head_address(cluster)
    given = {
        "KUBERAY_GEN_RAY_START_CMD": command,
        "RAY_PORT": _PORT,
        "RAY_timeout_ms_task_wait_for_death_info": "0",
        "RAY_gcs_server_request_timeout_seconds": "5",
        "RAY_SERVE_KV_TIMEOUT_S": "5",
        "RAY_ADDRESS": f"{address}:{_PORT}",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
        **({} if node_type == "head" else _head_names(cluster)),
    }
    return [
        *({"name": name, "value": value} for name, value in given.items()),
        *_about_itself(),
        _from_field("RAY_CLOUD_INSTANCE_ID", "metadata.name"),
        _from_field("RAY_NODE_TYPE_NAME", "metadata.labels['ray.io/group']"),
    ]


def _about_itself() -> list[Json]:
    return [
        _from_field("RAY_CLUSTER_NAME", "metadata.labels['ray.io/cluster']"),
        _from_field("RAY_CLUSTER_NAMESPACE", "metadata.namespace"),
    ]


def _head_names(cluster: Json) -> dict[str, str]:
    return {"FQ_RAY_IP": head_address(cluster), "RAY_IP": f"{cluster['metadata']['name']}-head-svc"}


def _from_field(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _token(cluster: Json) -> list[Json]:
    if (cluster["spec"].get("authOptions") or {}).get("mode") != "token":
        return []
    reference = {"name": token_secret(cluster), "key": "auth_token"}
    return [
        {"name": "RAY_AUTH_MODE", "value": "token"},
        {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": reference}},
    ]


def _autoscaler(cluster: Json, container: Json, token: list[Json]) -> Json:
    """Return the autoscaler sidecar. The sidecar has a security context only if autoscalerOptions define one."""
    options = cluster["spec"].get("autoscalerOptions") or {}
    amounts = {"cpu": "500m", "memory": "512Mi"}
    sidecar = {
        "name": "autoscaler",
        "image": container["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": _SHELL,
        "args": [_AUTOSCALE],
        "resources": {"limits": amounts, "requests": amounts},
    }
    kept = (
        "image",
        "imagePullPolicy",
        "resources",
        "securityContext",
        "command",
        "args",
        "envFrom",
        "volumeMounts",
    )
    variables = [
        *_about_itself(),
        _from_field("RAY_HEAD_POD_NAME", "metadata.name"),
        {"name": "KUBERAY_CRD_VER", "value": "v1"},
        {"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": _AUTOSCALE},
    ]
    given = {name: options[name] for name in kept if name in options}
    return {**sidecar, **given, "env": [*variables, *token, *options.get("env", [])]}


def _share_logs(spec: Json) -> None:
    """Share the log folder, so that the head can read the autoscaler's logs."""
    spec["volumes"] = [*spec.get("volumes", []), {"name": "ray-logs", "emptyDir": {}}]
    for each in (spec["containers"][0], spec["containers"][-1]):
        each["volumeMounts"] = [*each.get("volumeMounts", []), {"name": "ray-logs", "mountPath": "/tmp/ray"}]  # noqa: S108


def _wait_gcs(cluster: Json, container: Json, token: list[Json]) -> Json:
    amounts = {"cpu": "200m", "memory": "256Mi"}
    names = [{"name": name, "value": value} for name, value in _head_names(cluster).items()]
    init = {
        "name": "wait-gcs-ready",
        "image": container["image"],
        "command": _SHELL,
        "args": [_WAIT_GCS.format(address=f"{head_address(cluster)}:{_PORT}")],
        "env": [*container.get("env", []), *token, *names],
        "volumeMounts": container.get("volumeMounts", []),
        "resources": {"limits": amounts, "requests": amounts},
    }
    kept = ("imagePullPolicy", "securityContext")
    return init | {name: container[name] for name in kept if name in container}


def _probes(node_type: str) -> Json:
    """Return the probes.

    The probes check the agent's health, and the readiness of a worker also depends on its Serve proxy.
    """
    timeout = 5 if node_type == "head" else 2
    health = {"httpGet": {"path": "/api/healthz", "port": _AGENT_PORT}}
    often = {"timeoutSeconds": timeout, "periodSeconds": 5, "successThreshold": 1}
    readiness = {**often, "initialDelaySeconds": 10, "failureThreshold": 10, **health}
    if node_type == "worker":
        looks = (
            _WGET.format(timeout=2, port=_AGENT_PORT, path="api/local_raylet_healthz"),
            _WGET.format(timeout=10, port=8000, path="-/healthz"),
        )
        exec_probe = {"exec": {"command": ["bash", "-c", " && ".join(looks)]}}
        readiness = {**often, "initialDelaySeconds": 10, "failureThreshold": 1, **exec_probe}
    return {
        "livenessProbe": {**often, "initialDelaySeconds": 30, "failureThreshold": 120, **health},
        "readinessProbe": readiness,
    }
