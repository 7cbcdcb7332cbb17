# SPDX-License-Identifier: Apache-2.0
"""The namespace of a command without `-n`, the token of a pod, and the connection to the API server."""

import asyncio

import certifi
import pytest
import yaml

from sd_operator.errors import ClusterUnavailable
from sd_operator.kube import POD
from sd_operator.kube.connection import connect, default_namespace


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


@pytest.fixture
def pod(tmp_path, monkeypatch):
    """Inside a cluster; gives the file of the token."""
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("one\n")
    authority.write_text(certifi.contents())
    monkeypatch.setattr("kubernetes.aio.config.incluster_config.SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr("kubernetes.aio.config.incluster_config.SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return token


async def test_a_token_that_is_replaced_is_sent_with_the_next_request(pod):
    async with connect(5) as cluster:

        async def sent():
            return await cluster._api.configuration.get_api_key_with_prefix("BearerToken")

        assert await sent() == "Bearer one"
        pod.write_text("two\n")
        assert await sent() == "Bearer two"


@pytest.fixture
async def proxy():
    """Answers every request with its first line as the name of a pod."""

    async def answer(reader, writer):
        line = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0].decode()
        body = f'{{"metadata": {{"name": "{line}"}}}}'
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_the_environment_names_the_way(kubeconfig, proxy, monkeypatch):
    kubeconfig.write_text(kubeconfig.read_text().replace("https://127.0.0.1:1", "http://api.invalid:6443"))
    monkeypatch.setenv("http_proxy", proxy)
    async with connect(5) as cluster:
        found = await cluster.get(POD, "pictures", "a")
    assert found["metadata"]["name"].startswith(
        "GET http://api.invalid:6443/api/v1/namespaces/pictures/pods/a"
    )
    monkeypatch.setenv("no_proxy", "api.invalid")
    async with connect(5) as cluster:
        with pytest.raises(ClusterUnavailable):
            await cluster.get(POD, "pictures", "a")
