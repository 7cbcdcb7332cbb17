# SPDX-License-Identifier: Apache-2.0
import socket

import pytest

from sd_operator.builders.serve_config import serve_config
from sd_operator.errors import LocalRunFailed
from sd_operator.local import ray_process, serving


def test_only_http_options_differ_from_the_cluster(resource):
    here, there = serving.local_config(resource(), 8123), serve_config(resource().spec)
    assert here["http_options"] == {"host": "127.0.0.1", "port": 8123}
    assert here["applications"] == there["applications"]


async def test_a_busy_port_is_named_before_anything_starts(resource):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalRunFailed, match=f"port {port} of 127.0.0.1 is in use"):
            async with serving.serve(resource(), port, print):
                pass


async def test_a_missing_token_is_named(resource, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    model = {"preset": None, "uri": "hf://a/b", "revision": "0" * 40, "tokenSecretRef": {"name": "hf"}}
    with pytest.raises(LocalRunFailed, match="set HF_TOKEN in the environment"):
        async with serving.serve(resource(model=model), 1, print):
            pass


def test_free_ports_differ():
    assert len(set(ray_process.free_ports(20))) == 20


@pytest.mark.parametrize(
    ("uri", "says"),
    [("pvc://styles/ink", "cannot read a PersistentVolumeClaim"), ("file:///nowhere/ink", "does not exist")],
)
async def test_a_lora_that_is_not_here_is_named(resource, uri, says):
    loras = [{"name": "oil", "uri": "hf://a/b", "revision": "0" * 40}, {"name": "ink", "uri": uri}]
    with pytest.raises(LocalRunFailed, match=rf"spec\.model\.loras\[1\]\.uri: got {uri}: .*{says}"):
        async with serving.serve(resource(model={"loras": loras}), 1, print):
            pass
