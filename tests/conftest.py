# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tiers: a valid resource with changes merged over it and, with a control plane, kubectl and waiting."""

import asyncio
import json
import re
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from sd_operator.api import parse
from sd_testkit.generators.merging import merged

ROOT = Path(__file__).parent.parent
LONGEST_FIRST = ("runtime", "cluster", "faults", "training", "chart")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def service():
    """A StableDiffusionService as YAML gives it, with changes merged over it."""

    def build(**patch: Any) -> dict[str, Any]:
        return merged(yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text()), patch)

    return build


@pytest.fixture
def resource(service):
    """The same resource, parsed, with the identity that the API server would set."""

    def build(**spec: Any):
        identity = {"namespace": "team", "uid": "uid-1", "generation": 3}
        return parse(service(metadata=identity, spec=spec))

    return build


@pytest.fixture(scope="session")
def kubectl(control_plane):
    """Run kubectl. The test checks the exit code."""

    def run(*arguments, stdin=None) -> subprocess.CompletedProcess[str]:
        return control_plane.kubectl(*arguments, stdin=stdin, check=False)

    return run


@pytest.fixture
def namespace(kubectl, request):
    """A new namespace, deleted at the end with all its objects."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:30].strip("-")
    name = f"{words}-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def eventually(kubectl):
    """Wait until a condition holds. The time limit is generous, and a failure reports the state of the cluster."""

    async def wait(condition, within=240):
        deadline = time.monotonic() + within
        while True:
            failure = None
            try:
                # Conditions call kubectl. These calls run outside the event loop, which also runs the stand-in.
                if await asyncio.to_thread(condition):
                    return
            except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
                failure = error
            if time.monotonic() > deadline:
                kinds = "sdservice,rayservice,raycluster,pods"
                found = kubectl("get", kinds, "-A", "-o", "wide").stdout
                told = kubectl("get", "sdservice,rayservice", "-A", "-o", "yaml").stdout
                raise AssertionError(
                    f"the condition did not hold within {within} s\n{found}\n{told}"
                ) from failure
            await asyncio.sleep(0.7)  # Each attempt starts kubectl.

    return wait


@pytest.fixture
def get(kubectl, namespace):
    """Return the live object, or None."""

    def read(kind, name="imagine"):
        result = kubectl(
            "get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found", "--show-managed-fields"
        )
        return json.loads(result.stdout) if result.stdout else None

    return read


@pytest.fixture
def preloads(kubectl, namespace):
    """Return the DaemonSets that a service shares with others of its namespace, according to their owners."""

    def read(name="imagine"):
        selector = "app.kubernetes.io/component=preload"
        found = kubectl(
            "get", "daemonset", "-n", namespace, "-l", selector, "-o", "json", "--show-managed-fields"
        )
        return [
            each
            for each in json.loads(found.stdout)["items"]
            if name in {owner["name"] for owner in each["metadata"].get("ownerReferences", [])}
        ]

    return read


@pytest.fixture
def apply(kubectl, namespace):
    def send(body):
        result = kubectl("apply", "-n", namespace, "--validate=strict", "-f", "-", stdin=json.dumps(body))
        assert result.returncode == 0, result.stderr

    return send


@pytest.fixture
def told(get):
    """Return (status, reason, message) of a condition for the latest spec, or None while it describes an older one."""

    def read(kind, name="imagine"):
        live = get("sdservice", name) or {}
        status = live.get("status", {})
        if status.get("observedGeneration") != live.get("metadata", {}).get("generation"):
            return None
        found = (each for each in status.get("conditions", []) if each["type"] == kind)
        return next(((each["status"], each["reason"], each["message"]) for each in found), None)

    return read


@pytest.fixture
def condition(told):
    """Return (status, reason) of a condition for the latest spec, or None."""

    def read(kind, name="imagine"):
        found = told(kind, name)
        return None if found is None else found[:2]

    return read


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Provide every example that must be refused, for tests with the parameter `invalid`."""
    if "invalid" in metafunc.fixturenames:
        examples = yaml.safe_load((ROOT / "tests/data/invalid.yaml").read_text())
        metafunc.parametrize("invalid", examples, ids=[example["id"] for example in examples])


class ByFile(LoadFileScheduling):
    """Distributes each test file to one process.

    Files that share a Ray stay together, and so do those of tests/faults in `make test`.
    """

    def _split_scope(self, nodeid: str) -> str:
        together = ["tests/runtime", *(["tests/faults"] if self.config.option.markexpr else [])]
        alike = (each for each in together if nodeid.startswith(f"{each}/"))
        return next(alike, super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Distribute the tests for `pytest -n`."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest tiers, so that no process still runs one of them alone at the end."""

    def rank(item: pytest.Item) -> int:
        tier = item.path.relative_to(ROOT / "tests").parts[0]
        return LONGEST_FIRST.index(tier) if tier in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)
