# SPDX-License-Identifier: Apache-2.0
"""The rights of the autoscaler beside a head: ServiceAccount, Role and RoleBinding of a RayCluster (pure).

https://github.com/ray-project/kuberay v1.7.0, ray-operator/controllers/ray/common/rbac.go.
"""

from sd_testkit.json_types import Json
from sd_testkit.kuberay.objects import owner
from sd_testkit.kuberay.ray_pods import service_account

_GROUP = "rbac.authorization.k8s.io"
_RULES = (
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]},
    {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get", "patch"]},
)


def autoscaler_rights(cluster: Json) -> list[Json]:
    """Return the three objects. The ServiceAccount is left out if the template names one of the user's."""
    name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
    account = service_account(cluster)
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    role = {"kind": "Role", "name": name, "apiGroup": _GROUP}
    accounts: list[Json] = [{"apiVersion": "v1", "kind": "ServiceAccount"}] if account == name else []
    rights: list[Json] = [
        *accounts,
        {"apiVersion": f"{_GROUP}/v1", "kind": "Role", "rules": list(_RULES)},
        {"apiVersion": f"{_GROUP}/v1", "kind": "RoleBinding", "subjects": [subject], "roleRef": role},
    ]
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": {"ray.io/cluster": name, "app.kubernetes.io/created-by": "kuberay-operator"},
        "ownerReferences": [owner(cluster)],
    }
    return [{**each, "metadata": metadata} for each in rights]
