# SPDX-License-Identifier: Apache-2.0
"""HTTP client for pods of tenants: bounded in bytes and time, without redirects, cookies and compression.

A tenant controls the pod, so the client does not trust it. A huge or endless body, silence, or one byte per second cost no
more than the bounds. The client follows no redirects, because a tenant could send the operator to any address in its network.
It stores no cookies: through the API server's proxy all tenants have the same host, so one tenant would get another's cookie.
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
    """An HTTP response.

    Attributes:
        status: the HTTP status.
        body: the body; for an error status only the start.
        secrets: secrets in the request. They are removed from texts, in case the pod repeats them.
    """

    status: int
    body: bytes
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def text(self) -> str:
        """The body as text, without the secrets of the request."""
        return _without(self.body.decode(errors="replace").strip(), self.secrets)

    def object(self) -> Json:
        """The JSON object in the body.

        Raises:
            RayUnavailable: the status is not 200, or the body is not a JSON object.
        """
        self.check()
        return parse_object(self.body)

    def check(self) -> None:
        """Check that the status is 200.

        Raises:
            RayUnavailable: the status is an error or a redirect. The error has the body, if it is plain text.
        """
        if self.status != _OK:
            message = self._message()
            refuse(f"Ray answers {self.status}{': ' if message else ''}{message}")

    def _message(self) -> str:
        text = self.text
        if text.startswith("{"):  # a Status object of the API server
            with suppress(RayUnavailable):
                text = str(parse_object(text.encode()).get("message", text))
        return "" if text.startswith("<") else one_line(text, 200)


@asynccontextmanager
async def connections(
    timeout_seconds: float, connector: aiohttp.TCPConnector | None = None
) -> AsyncIterator[Session]:
    """A session for any number of pods. Each request has this timeout, unless it sets its own."""
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
    """Send a request and read its response within bounds.

    Args:
        session: the session of `connections`.
        method: HTTP method, such as GET.
        url: URL of the request.
        headers: headers of the request.
        seconds: timeout from the start to the last byte.
        most: maximum number of bytes of the body; 0: do not read the body.
        more: further arguments for aiohttp.

    Raises:
        RayTooSlow: the response was not complete in time.
        RayUnavailable: there was no response, or its body was too large.
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
    except TimeoutError as error:  # includes the timeouts of aiohttp
        raise RayTooSlow(f"no answer from Ray within {seconds:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise RayUnavailable(_message(error, secrets)) from error


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    try:
        if most == 0:
            response.close()
            return b""
        return await _read(response, most)
    except BaseException:
        response.close()  # without waiting for the rest of the body
        raise


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    is_refusal = response.status != _OK
    if not is_refusal and response.headers.get("Content-Encoding", "").strip().lower() not in _PLAIN:
        refuse("Ray's answer is compressed, although the request does not allow compression")
    found = bytearray()
    async for chunk in response.content.iter_any():
        found += chunk
        if is_refusal and len(found) >= _MOST_OF_A_REFUSAL:
            response.close()
            return bytes(found[:_MOST_OF_A_REFUSAL])
        if len(found) > most:
            refuse(f"Ray's answer is larger than {most / 2**20:g} MiB")
    return bytes(found)


def _message(error: Exception, secrets: tuple[str, ...]) -> str:
    if isinstance(error, aiohttp.ClientPayloadError):
        return "Ray's answer is incomplete: the connection was closed before the end"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "no answer from Ray: the connection was closed before an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "Ray's answer is not HTTP, or has headers that are too long"
    text = _without(str(error) or type(error).__name__, secrets)
    return one_line(f"no answer from Ray: {text}")


def _without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
