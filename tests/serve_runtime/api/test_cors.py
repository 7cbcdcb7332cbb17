# SPDX-License-Identifier: Apache-2.0
"""The web pages that may call the service from a browser."""

import pytest

ROUTE = "/v1/images/generations"
PAGE = "https://ui.example.org"


async def test_without_an_allow_list_no_page_may_read_an_answer(http):
    answer = await http.get("/healthz", headers={"origin": PAGE})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "vary" not in answer.headers


@pytest.mark.parametrize("origins", [[PAGE, "http://localhost:3000"], ["*"]])
async def test_a_page_on_the_allow_list_may_call(http, configure, origins):
    configure(allowed_origins=origins)
    preflight = {"origin": PAGE, "access-control-request-method": "POST"}
    answer = await http.options(ROUTE, headers=preflight)
    assert (answer.status_code, answer.headers["vary"]) == (204, "origin")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert "content-type" in answer.headers["access-control-allow-headers"]
    for method, status in (("GET", 405), ("POST", 200)):
        answer = await http.request(method, ROUTE, json={"prompt": "a"}, headers={"origin": PAGE})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, PAGE)
        assert {"x-request-id", "x-warnings"} <= set(
            answer.headers["access-control-expose-headers"].split(", ")
        )
        assert "access-control-allow-methods" not in answer.headers


@pytest.mark.parametrize(
    "origin", [{"origin": "https://ui.example.org.evil"}, {"origin": "null"}, {}], ids=str
)
async def test_another_page_may_not(http, configure, origin):
    configure(allowed_origins=[PAGE])
    answer = await http.options(ROUTE, headers={**origin, "access-control-request-method": "POST"})
    assert answer.headers["vary"] == "origin"
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", ["ui.example.org", "https://ui.example.org/", "HTTPS://x", "", "null"])
def test_an_origin_is_scheme_host_and_port(configure, origin):
    with pytest.raises(ValueError, match="allowed_origins"):
        configure(allowed_origins=[origin])
