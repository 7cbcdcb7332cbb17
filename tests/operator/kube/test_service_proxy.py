# SPDX-License-Identifier: Apache-2.0
"""The API server proxies requests to pods, with the same limits. Its credentials never reach a pod."""

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from sd_operator.bounded_http import Answer
from sd_operator.errors import RayUnavailable
from sd_operator.kube import Cluster
from sd_operator.ray import readiness_probe
from sd_operator.ray.serve_reader import DashboardTarget, through_api_server
from sd_testkit.generators.hostile import MISBEHAVIOURS, serving

PLACE = DashboardTarget("team", "imagine-abcde", "head-1", "rays-token")
PROXIED = "/api/v1/namespaces/team/services/imagine-abcde-head-svc:dashboard/proxy/api/serve/applications/"


@pytest.fixture
async def cluster():
    """A client of an API server at a URL, whose token is `operators-token`."""
    opened = []

    def connect(url):
        configuration = Configuration(host=url, api_key={"BearerToken": "Bearer operators-token"})
        api = ApiClient(configuration)
        opened.append(api)
        found = Cluster(api, 5)
        opened.append(found._services)
        return found

    yield connect
    for each in opened:
        await each.__aexit__(None, None, None)


async def test_a_dashboard_gets_rays_token_and_the_api_server_ours(http_server, cluster):
    sent = []

    def answer(headers):
        sent.append({name: headers[name] for name in ("Authorization", "X-Ray-Authorization")})
        return 200, b'{"applications": {}}'

    url, asked = http_server(answer)
    assert await through_api_server(cluster(url)).serve(PLACE, 5) == {"applications": {}}
    assert asked == [PROXIED]
    assert sent == [{"Authorization": "Bearer operators-token", "X-Ray-Authorization": "Bearer rays-token"}]


async def test_the_api_servers_words_are_quoted_without_any_token(http_server, cluster):
    body = b'{"kind": "Status", "message": "operators-token may not get rays-token: services/proxy is forbidden"}'
    url, _ = http_server(lambda _: (403, body))
    with pytest.raises(RayUnavailable) as raised:
        await through_api_server(cluster(url)).serve(PLACE, 5)
    assert str(raised.value) == r"Ray answers 403: *** may not get ***: services/proxy is forbidden"


@pytest.mark.parametrize(
    "what", ["redirect", "a gigabyte", "closed in the middle", "NaN", "compressed", "no HTTP"]
)
async def test_what_a_pod_misbehaves_is_no_answer_here_too(what, cluster):
    async with serving(lambda: MISBEHAVIOURS[what]) as port:
        asks = through_api_server(cluster(f"http://127.0.0.1:{port}"))
        for ask in asks:
            with pytest.raises(RayUnavailable):
                await ask(PLACE, 5)


async def test_whether_a_service_would_draw_is_told_by_the_status_alone(cluster):
    for what, wanted in (
        ("an endless body", True),
        ("a refusal", False),
        ("redirect", False),
        ("no HTTP", False),
    ):
        async with serving(lambda what=what: MISBEHAVIOURS[what]) as port:
            probe = readiness_probe.through_api_server(cluster(f"http://127.0.0.1:{port}"))
            assert await probe("team", "imagine-serve-svc", 5) is wanted, what


def test_no_secret_is_in_the_representation_of_an_answer():
    assert "secret" not in repr(Answer(200, b"", ("secret",))).replace("secrets", "")
