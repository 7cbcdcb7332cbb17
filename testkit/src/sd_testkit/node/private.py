# SPDX-License-Identifier: Apache-2.0
"""A registry with a name and a password, in front of a registry without them."""

import base64
import hmac
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PRIVATE_HOST = "private.test"
USER = "puller"


class PrivateRegistry:
    """A registry that requires basic authentication and then redirects the client.

    Registries with separate blob storage do the same.

    Nodes use the name `private.test`, without the port.

    Args:
        behind: address of the registry that has the images.

    Attributes:
        password: password of the only user, `USER`.
    """

    def __init__(self, behind: str) -> None:
        self.password = secrets.token_hex(16)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(behind, self.password))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """URL of the registry: plain HTTP."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Start the server."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the server."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _handler(behind: str, password: str) -> type[BaseHTTPRequestHandler]:
    wanted = "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if hmac.compare_digest(self.headers.get("Authorization", ""), wanted):
                self.send_response(307)
                self.send_header("Location", behind + self.path)
            else:
                self.send_response(401)
                self.send_header("WWW-Authenticate", f'Basic realm="{PRIVATE_HOST}"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Write no log: the client's log has the same information."""

    return Door
