# SPDX-License-Identifier: Apache-2.0
"""The tunnel leads to the server of a pod and port, and to no other address."""

import asyncio
from ipaddress import IPv4Network

import pytest
from aiohttp import web

from sd_testkit.generators.hostile import MISBEHAVIOURS
from sd_testkit.ray.network import Network


@pytest.fixture
async def network(tmp_path):
    found = Network(tmp_path / "pods.sock")
    await found.open()
    yield found
    await found.close()


async def through(network_socket, address):
    """What a GET through the tunnel brings: the tunnel's status line, and the server's body."""
    reader, writer = await asyncio.open_unix_connection(str(network_socket))
    writer.write(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    status = await reader.readline()
    if b" 200 " not in status:
        writer.close()
        return status.split()[1], b""
    await reader.readline()
    writer.write(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
    body = await reader.read()
    writer.close()
    return status.split()[1], body.rpartition(b"\r\n")[2]


async def test_each_pod_has_its_own_server(network, tmp_path):
    for address in ("10.64.0.1", "10.64.0.2"):
        application = web.Application()

        async def name(_, address=address):
            return web.Response(text=address)

        application.router.add_get("/", name)
        await network.start(address, 8000, application)
    assert await through(tmp_path / "pods.sock", "10.64.0.2:8000") == (b"200", b"10.64.0.2")
    await network.stop("10.64.0.2", 8000)
    assert (await through(tmp_path / "pods.sock", "10.64.0.2:8000"))[0] == b"503"
    assert await through(tmp_path / "pods.sock", "10.64.0.1:8000") == (b"200", b"10.64.0.1")


async def test_a_pod_that_misbehaves_answers_each_request_in_another_way(network, tmp_path):
    application = web.Application()

    async def well(_):
        return web.Response(text="well")

    application.router.add_get("/", well)
    await network.start("10.64.0.1", 8265, application)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "pods.sock"))
    writer.write(b"CONNECT 10.64.0.1:8265 HTTP/1.1\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    network.misbehave("10.64.0.1", does=True)
    assert await asyncio.wait_for(reader.read(), 10) == b"", (
        "kept connections end, or they would go on as before"
    )
    writer.close()
    assert next(iter(MISBEHAVIOURS)) == "list for object"
    assert await through(tmp_path / "pods.sock", "10.64.0.1:8265") == (b"200", b"[1, 2]")
    assert await through(tmp_path / "pods.sock", "10.64.0.1:8265") == (b"200", b"7")
    network.misbehave("10.64.0.1", does=False)
    assert (await through(tmp_path / "pods.sock", "10.64.0.1:8265"))[1].endswith(b"well")


async def test_addresses_of_real_nodes_are_dialled(tmp_path):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nreal")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    network = Network(tmp_path / "pods.sock", IPv4Network("127.0.0.0/24"))
    await network.open()
    assert await through(tmp_path / "pods.sock", f"127.0.0.1:{port}") == (b"200", b"real")
    assert (await through(tmp_path / "pods.sock", "127.0.1.1:80"))[0] == b"503"
    await network.close()
    server.close()
    await server.wait_closed()
