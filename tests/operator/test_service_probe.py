# SPDX-License-Identifier: Apache-2.0
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sd_operator import service_probe


@pytest.fixture
def service():
    """Services on this machine: the codes they answer with, one after the other, what they were asked for, their address."""
    codes, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = b'{"ready": true}'
            self.send_response(codes.pop(0))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield codes, asked, lambda *name: f"http://127.0.0.1:{server.server_port}/{'/'.join(name)}"
    server.shutdown()
    server.server_close()


async def test_a_service_says_yes_or_no(service):
    codes, asked, address = service
    codes += [200, 503]
    probe = service_probe.directly(address)
    assert [await probe("team", "imagine-serve-svc") for _ in range(2)] == [True, False]
    assert asked == ["/imagine-serve-svc/team/readyz"] * 2


async def test_no_answer_is_no():
    assert not await service_probe.directly(lambda *_: "http://127.0.0.1:9")("team", "imagine-serve-svc")
