# SPDX-License-Identifier: Apache-2.0
import subprocess

import pytest
import yaml

from sd_operator.api.crd import custom_resource_definition
from sd_operator.api.status import ConditionType, Reason
from sd_operator.status import reasons
from sd_testkit.chart.files import values_schema, values_yaml

COPIES = ("crds", "charts/stable-diffusion-operator/files/crds")
NAME = "sdservice.dev_stablediffusionservices.yaml"
SOURCES = ("*.py", "*.sh", "Makefile")


@pytest.mark.parametrize("folder", COPIES)
def test_crd_copy_is_current(root, folder):
    found = yaml.safe_load((root / folder / NAME).read_text())
    assert found == custom_resource_definition(), "run `make generate` and commit the result"


def test_both_copies_are_the_same_bytes(root):
    first, second = ((root / folder / NAME).read_bytes() for folder in COPIES)
    assert first == second, "run `make generate` and commit the result"


@pytest.mark.parametrize(
    ("name", "wanted"), [("values.yaml", values_yaml), ("values.schema.json", values_schema)]
)
def test_values_of_the_chart_are_current(root, name, wanted):
    found = (root / "charts/stable-diffusion-operator" / name).read_text()
    assert found == wanted(), "run `make generate` and commit the result"


def test_every_condition_and_reason_is_described():
    assert list(reasons.CONDITIONS) == list(ConditionType)
    assert set(reasons.REASONS) == set(Reason)


def test_page_of_reasons_is_current(root):
    found = (root / "docs/reasons.md").read_text()
    assert found == reasons.page(), "run `make generate` and commit the result"


def test_every_source_file_states_its_licence(root):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *SOURCES],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    missing = [
        name
        for name in listed.stdout.split()
        if (root / name).exists()
        and "SPDX-License-Identifier: Apache-2.0" not in (root / name).read_text()[:200]
    ]
    assert missing == []
