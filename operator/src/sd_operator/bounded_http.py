# SPDX-License-Identifier: Apache-2.0
"""HTTP to a pod of a tenant: bounded in bytes and time, without redirects, cookies and compression.

Neither a gigabyte nor an endless body, neither silence nor a byte a second costs more than the bounds. A redirect is not
followed: it would lead this process, with its place in the network, wherever the tenant likes. A cookie of one tenant
would be sent to another, since by the API server's proxy all of them have one host.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from sd_operator.errors import RayTooSlow, RayUnavailable
from sd_operator.json_types import Json
from sd_operator.strict_json import one_line, parse_object, refuse

Session = aiohttp.ClientSession

MOST_BYTES = 4 * 2**20
_MOST_OF_A_REFUSAL = 4096
_OK = 200
_SECRET = frozenset({"authorization", "x-ray-authorization"})
_PLAIN = frozenset({"", "identity"})


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        status: of HTTP.
        body: of a refusal only the beginning.
        secrets: what was sent and must not be quoted, should the pod repeat it.
    """

    status: int
    body: bytes
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def text(self) -> str:
        """The body as text, without what was sent."""
        return _without(self.body.decode(errors="replace").strip(), self.secrets)

    def object(self) -> Json:
        """The JSON object that it holds.

        Raises:
            RayUnavailable: it is a refusal, or holds anything else.
        """
        self.check()
        return parse_object(self.body)

    def check(self) -> None:
        """Accept a success.

        Raises:
            RayUnavailable: it is a refusal or a redirect; with its words, where these are plain text.
        """
        if self.status != _OK:
            words = self._words()
            refuse(f"Ray answers {self.status}{': ' if words else ''}{words}")

    def _words(self) -> str:
        text = self.text
        if text.startswith("{"):  # of the API server
            with suppress(RayUnavailable):
                text = str(parse_object(text.encode()).get("message", text))
        return "" if text.startswith("<") else one_line(text, 200)


@asynccontextmanager
async def connections(
    timeout_seconds: float, connector: aiohttp.TCPConnector | None = None
) -> AsyncIterator[Session]:
    """Connections to any number of pods, with a deadline on each request that names no other."""
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield session


async def request(
    session: Session,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    seconds: float,
    most: int = MOST_BYTES,
    **more: Any,
) -> Answer:
    """Send a request and read its answer within bounds.

    Args:
        session: of `connections`.
        method: such as GET.
        url: where to.
        headers: to send.
        seconds: from the start to the last byte.
        most: bytes of a body that are read at most; 0: the status is enough.
        more: arguments of aiohttp.

    Raises:
        RayTooSlow: there was no whole answer in time.
        RayUnavailable: there was none, or a larger one.
    """
    sent = {"Accept-Encoding": "identity", **headers}
    secrets = tuple(
        value.rpartition(" ")[2] for name, value in headers.items() if value and name.lower() in _SECRET
    )
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=seconds, sock_read=seconds)
    try:
        async with (
            asyncio.timeout(seconds),
            session.request(
                method, url, headers=sent, allow_redirects=False, timeout=timeout, **more
            ) as response,
        ):
            return Answer(response.status, await _body(response, most), secrets)
    except TimeoutError as error:  # aiohttp's are of this kind too
        raise RayTooSlow(f"no answer from Ray within {seconds:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise RayUnavailable(_words(error, secrets)) from error


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    try:
        if most == 0:
            response.close()
            return b""
        return await _read(response, most)
    except BaseException:
        response.close()  # what is still to come is not waited for
        raise


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    is_refusal = response.status != _OK
    if not is_refusal and response.headers.get("Content-Encoding", "").strip().lower() not in _PLAIN:
        refuse("Ray's answer is compressed, which was not asked for")
    found = bytearray()
    async for chunk in response.content.iter_any():
        found += chunk
        if is_refusal and len(found) >= _MOST_OF_A_REFUSAL:
            response.close()
            return bytes(found[:_MOST_OF_A_REFUSAL])
        if len(found) > most:
            refuse(f"Ray's answer is larger than {most / 2**20:g} MiB")
    return bytes(found)


def _words(error: Exception, secrets: tuple[str, ...]) -> str:
    if isinstance(error, aiohttp.ClientPayloadError):
        return "Ray's answer is cut off: the connection was closed in the middle of it"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "no answer from Ray: the connection was closed before one"
    if isinstance(error, aiohttp.ClientResponseError):
        return "Ray's answer is not HTTP, or has headers that are too long"
    text = _without(str(error) or type(error).__name__, secrets)
    return one_line(f"no answer from Ray: {text}")


def _without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
