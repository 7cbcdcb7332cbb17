# SPDX-License-Identifier: Apache-2.0
"""The pod network of the API server: HTTP CONNECT on a Unix socket, with a server for each pod and port behind it.

The API server dials pods through this socket (its egress selector). `.../services/NAME:PORT/proxy/` therefore reaches
simulated pods by the addresses in EndpointSlices, without privileges and without routes. A pod without a running Ray
has no server, so its connections are refused. Addresses of a real node are dialled directly.
"""

import asyncio
import contextlib
import itertools
import logging
import tempfile
from ipaddress import IPv4Network, ip_address
from pathlib import Path

from aiohttp import web

from sd_testkit.generators.hostile import MISBEHAVIOURS, converse

logger = logging.getLogger(__name__)

_CHUNK = 65536

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Network:
    """Servers by address and port, and the tunnel that leads to them.

    Args:
        socket: the socket that the API server dials.
        routed: addresses to which this host has routes; None: there are none.
    """

    def __init__(self, socket: Path, routed: IPv4Network | None = None) -> None:
        self._socket = socket
        self._routed = routed
        self._servers: dict[tuple[str, int], web.AppRunner] = {}
        self._dialled: dict[asyncio.Task[None], str] = {}
        self._hostile: set[str] = set()
        self._misbehaviours = itertools.cycle(MISBEHAVIOURS.values())
        self._folder = tempfile.TemporaryDirectory(prefix="sd-pods-")
        self._tunnel: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start to listen for the API server."""
        self._socket.unlink(missing_ok=True)
        self._tunnel = await asyncio.start_unix_server(self._connect, str(self._socket))

    async def close(self) -> None:
        """Stop every server and close every connection."""
        if self._tunnel is not None:
            self._tunnel.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for address, port in list(self._servers):
            await self.stop(address, port)
        self._folder.cleanup()

    async def start(self, address: str, port: int, application: web.Application) -> None:
        """Start a server on an address and port of the pod network."""
        if (address, port) in self._servers:
            return
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(self._path(address, port))).start()
        self._servers[address, port] = runner

    def misbehave(self, address: str, *, does: bool) -> None:
        """Set whether all servers on an address answer each request with the next malformed response.

        A change closes open connections, since the API server reuses them for further requests.
        """
        if does is (address in self._hostile):
            return
        (self._hostile.add if does else self._hostile.discard)(address)
        for connection in [task for task, dialled in self._dialled.items() if dialled == address]:
            connection.cancel()

    async def stop(self, address: str, port: int) -> None:
        """Stop the server. Requests in progress are cut off."""
        runner = self._servers.pop((address, port), None)
        if runner is not None:
            await runner.cleanup()

    def _path(self, address: str, port: int) -> Path:
        return Path(self._folder.name) / f"{address}-{port}"

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._forget)

    def _forget(self, connection: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        self._dialled.pop(connection, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),
            contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError),
        ):
            head = await reader.readuntil(b"\r\n\r\n")
            address, _, port = head.split()[1].decode().rpartition(":")
            if (connection := asyncio.current_task()) is not None:
                self._dialled[connection] = address
            if address in self._hostile:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await converse(reader, writer, next(self._misbehaviours))
                return
            try:
                inner = await self._dial(address.strip("[]"), int(port))
            except OSError:
                writer.write(b"HTTP/1.1 503 connection refused\r\n\r\n")
                return
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with contextlib.closing(inner[1]):
                await asyncio.gather(_copy(reader, inner[1]), _copy(inner[0], writer))

    async def _dial(self, address: str, port: int) -> Streams:
        is_simulated = (address, port) in self._servers
        if not is_simulated and self._routed is not None and ip_address(address) in self._routed:
            return await asyncio.open_connection(address, port)
        return await asyncio.open_unix_connection(str(self._path(address, port)))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # One side has disconnected.
    finally:
        writer.close()
