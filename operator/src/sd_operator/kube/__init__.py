# SPDX-License-Identifier: Apache-2.0
"""The client of the API server; the only package that imports kubernetes."""

from sd_operator.kube.client import Cluster
from sd_operator.kube.connection import connect, default_namespace
from sd_operator.kube.kinds import (
    CORE_EVENT,
    DAEMON_SET,
    DEPLOYMENT,
    EVENT,
    GATEWAY,
    LEASE,
    NETWORK_POLICY,
    NODE,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    SECRET,
    SERVICE,
    Kind,
    kind_of,
)
from sd_operator.kube.listed import ListedCluster

__all__ = [
    "CORE_EVENT",
    "DAEMON_SET",
    "DEPLOYMENT",
    "EVENT",
    "GATEWAY",
    "LEASE",
    "NETWORK_POLICY",
    "NODE",
    "POD",
    "RAY_CLUSTER",
    "RAY_SERVICE",
    "SECRET",
    "SERVICE",
    "Cluster",
    "Kind",
    "ListedCluster",
    "connect",
    "default_namespace",
    "kind_of",
]
