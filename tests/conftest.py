# SPDX-License-Identifier: Apache-2.0
"""What every tier uses: a valid resource, and changes merged over it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sd_operator.api import parse
from sd_testkit.merging import merged

ROOT = Path(__file__).parent.parent


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
