# SPDX-License-Identifier: Apache-2.0
"""The scenario list against the stand-in. The file runs the code of `tests/e2e` without an external cluster."""

import pytest
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_testkit.scenarios import SCENARIOS, User


@pytest.fixture(scope="module")
async def user(control_plane, operator, kubectl, root):
    """One user and one service, which the scenarios pass on."""
    namespace = "scenarios"
    kubectl("create", "namespace", namespace)
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    base = yaml.safe_load((root / "examples/cpu.yaml").read_text())
    async with ApiClient(configuration) as api:
        yield User(api, namespace, base, patience=120)
    kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_scenario(user, scenario):
    await scenario.play(user)
