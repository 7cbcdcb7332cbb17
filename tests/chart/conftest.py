# SPDX-License-Identifier: Apache-2.0
"""The rendered chart as typed objects. A field that Kubernetes does not know is refused."""

import functools
import json

import pytest
import yaml
from kubernetes.aio import client

from sd_testkit.chart import rendered
from sd_testkit.generators.merging import merged


@functools.cache
def _rendered(values, namespace):
    return rendered(json.loads(values), namespace=namespace)


class Objects:
    """The objects of one rendering."""

    UNTYPED = frozenset({"PodMonitor", "PrometheusRule"})
    """Kinds of the Prometheus operator. The client has no Python classes for them."""

    def __init__(self, bodies):
        self.bodies = bodies

    def all(self, kind):
        """Return all objects of a kind, typed."""
        return [typed(body) for body in self.bodies if body["kind"] == kind]

    def one(self, kind, name=None):
        """Return the only object of a kind, or of a kind and name."""
        (found,) = (each for each in self.all(kind) if name in {None, each.metadata.name})
        return found

    def typed(self):
        return [typed(body) for body in self.bodies if body["kind"] not in self.UNTYPED]

    def raw(self, kind):
        return [body for body in self.bodies if body["kind"] == kind]


def typed(body):
    """Return the object as a class of the Kubernetes client. Unknown fields are refused."""
    version = body["apiVersion"].rpartition("/")[2]
    return getattr(client, f"{version.upper()[0]}{version[1:]}{body['kind']}").model_validate(body)


@pytest.fixture(scope="session")
def chart():
    """Render the chart with changes merged over the default values."""

    def build(namespace="sdservice-system", **values):
        return Objects(_rendered(json.dumps(values, sort_keys=True), namespace))

    return build


@pytest.fixture(scope="session")
def examples(root):
    return yaml.safe_load((root / "tests/data/chart-values.yaml").read_text())


@pytest.fixture(scope="session")
def everything(examples):
    """Values with every optional object: the examples, with nothing disabled."""
    on = {
        "image": {"tag": ""},
        "leaderElection": True,
        "watchOwnNamespace": False,
        "crd": {"install": True},
        "rbac": {"create": True, "clusterReads": True, "aggregate": True},
        "serviceAccount": {"create": True},
        "warm": {"priorityClass": {"create": True}},
        "podDisruptionBudget": {"enabled": True},
        "networkPolicy": {"enabled": True},
    }
    return merged(examples["values"], on)
