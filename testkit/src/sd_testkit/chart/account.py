# SPDX-License-Identifier: Apache-2.0
"""The operator's ServiceAccount as the chart creates it, for an operator that runs outside the cluster."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sd_testkit.chart.render import rendered
from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.json_types import Json

_KINDS = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}


@dataclass(frozen=True)
class Account:
    """A ServiceAccount, and a kubeconfig with which a program authenticates as this account."""

    namespace: str
    name: str
    kubeconfig: Path

    @property
    def user(self) -> str:
        """User name of the account in the API server."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"


def role_rules(bodies: list[Json]) -> list[Json]:
    """All rules of the Roles and ClusterRoles that are bound to the operator."""
    roles = {
        (body["kind"], body["metadata"].get("namespace"), body["metadata"]["name"]): body["rules"]
        for body in bodies
        if body["kind"] in {"Role", "ClusterRole"} and not _is_hook(body)
    }
    bound = [body for body in bodies if body["kind"].endswith("Binding") and not _is_hook(body)]
    found: list[Json] = []
    for body in bound:
        reference, namespace = body["roleRef"], body["metadata"].get("namespace")
        scope = namespace if reference["kind"] == "Role" else None
        found += roles[reference["kind"], scope, reference["name"]]
    return found


def service_account(
    control_plane: ControlPlane, folder: Path, *, namespace: str = "sdservice-system", **values: Any
) -> Account:
    """Create the ServiceAccount and the RBAC objects of the chart for these values, and nothing else of the chart.

    Args:
        control_plane: the cluster.
        folder: folder for the kubeconfig.
        namespace: namespace of the release. It is created if it does not exist.
        **values: values of the chart.
    """
    bodies = [
        body
        for body in rendered(values, namespace=namespace)
        if body["kind"] in _KINDS and not _is_hook(body)
    ]
    control_plane.kubectl("create", "namespace", namespace, check=False)
    listed = {"apiVersion": "v1", "kind": "List", "items": bodies}
    control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(listed))
    name = next(body["metadata"]["name"] for body in bodies if body["kind"] == "ServiceAccount")
    return Account(namespace, name, token_kubeconfig(control_plane, namespace, name, folder))


def token_kubeconfig(control_plane: ControlPlane, namespace: str, name: str, folder: Path) -> Path:
    """A kubeconfig with a token of a ServiceAccount. The token is valid for 10 hours."""
    token = control_plane.kubectl("create", "token", name, "-n", namespace, "--duration=10h").stdout.strip()
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    path = folder / f"{namespace}-{name}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def _is_hook(body: Json) -> bool:
    return "helm.sh/hook" in body["metadata"].get("annotations", {})
