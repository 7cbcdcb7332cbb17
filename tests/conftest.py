# SPDX-License-Identifier: Apache-2.0
"""What every tier uses: a valid resource, and changes merged over it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from sd_operator.api import parse
from sd_testkit.merging import merged

ROOT = Path(__file__).parent.parent
LONGEST_FIRST = ("runtime", "cluster", "training")


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
    """The same, parsed, with the identity the API server would give it."""

    def build(**spec: Any):
        identity = {"namespace": "team", "uid": "uid-1", "generation": 3}
        return parse(service(metadata=identity, spec=spec))

    return build


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every example that must be refused, for tests that ask for `invalid`."""
    if "invalid" in metafunc.fixturenames:
        examples = yaml.safe_load((ROOT / "tests/data/invalid.yaml").read_text())
        metafunc.parametrize("invalid", examples, ids=[example["id"] for example in examples])


class ByFile(LoadFileScheduling):
    """A file of tests goes to one process, and all that share a Ray go to the same."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/runtime" if nodeid.startswith("tests/runtime/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Share out the tests for `pytest -n`."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tiers, so that no process is left with one of them at the end."""

    def rank(item: pytest.Item) -> int:
        tier = item.path.relative_to(ROOT / "tests").parts[0]
        return LONGEST_FIRST.index(tier) if tier in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)
