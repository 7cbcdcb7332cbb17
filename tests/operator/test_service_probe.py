# SPDX-License-Identifier: Apache-2.0
from sd_operator import service_probe


async def test_a_service_says_yes_or_no(http_server):
    codes = [200, 503]
    url, asked = http_server(lambda _: (codes.pop(0), b'{"ready": true}'))
    probe = service_probe.directly(lambda *name: f"{url}/{'/'.join(name)}")
    assert [await probe("team", "imagine-serve-svc") for _ in range(2)] == [True, False]
    assert asked == ["/imagine-serve-svc/team/readyz"] * 2


async def test_no_answer_is_no():
    assert not await service_probe.directly(lambda *_: "http://127.0.0.1:9")("team", "imagine-serve-svc")
