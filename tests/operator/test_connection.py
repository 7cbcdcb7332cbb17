# SPDX-License-Identifier: Apache-2.0
"""The namespace that a command without `-n` takes."""

import pytest
import yaml

from sd_operator.cluster.connection import default_namespace


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    """Contexts with and without a namespace; the first is the current one."""
    cluster = {"cluster": "here", "user": "me"}
    contexts = [
        {"name": "team", "context": {**cluster, "namespace": "pictures"}},
        {"name": "plain", "context": cluster},
    ]
    file = tmp_path / "config"
    file.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "here", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "me", "user": {}}],
                "contexts": contexts,
                "current-context": "team",
            }
        )
    )
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return file


@pytest.mark.parametrize(
    ("context", "namespace"),
    [(None, "pictures"), ("team", "pictures"), ("plain", "default")],
)
async def test_it_is_that_of_the_context(kubeconfig, context, namespace):
    assert await default_namespace(context) == namespace


async def test_it_is_default_without_a_kubeconfig(kubeconfig):
    kubeconfig.unlink()
    assert await default_namespace() == "default"
