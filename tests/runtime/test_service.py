# SPDX-License-Identifier: Apache-2.0
"""The Serve application over HTTP: real Ray, real pipeline, real images."""

import base64
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

RED, WHITE = (255, 0, 0), (255, 255, 255)


def near(colour, wanted, within=70):
    return all(abs(one - other) <= within for one, other in zip(colour, wanted, strict=True))


def test_a_red_circle_is_red_and_round(http, looks):
    answer = http.get("/imagine", params={"prompt": "a red circle on a white background", "seed": 1})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    background, shape, fill = looks(answer.content)
    assert near(shape, RED), shape
    assert near(background, WHITE), background
    assert 0.68 < fill < 0.84, fill  # pi/4 is .785; a square fills 1, a triangle .5


def test_another_prompt_is_another_picture(http, looks):
    answer = http.get("/imagine", params={"prompt": "a blue square on a black background", "seed": 1})
    background, shape, fill = looks(answer.content)
    assert near(shape, (0, 0, 255), within=110), shape
    assert near(background, (0, 0, 0)), background
    assert fill > 0.84, fill


def test_openai_route_gives_the_same_pictures(http, difference):
    prompt = "a red circle on a white background"
    body = {"prompt": prompt, "size": "64x64", "seed": 5, "n": 2}
    answer = http.post("/v1/images/generations", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-seed"] == "5"
    both = [base64.b64decode(each["b64_json"]) for each in answer.json()["data"]]
    alone = [http.get("/imagine", params={"prompt": prompt, "seed": seed}).content for seed in (5, 6)]
    assert all(difference(*pair) <= 2 for pair in zip(both, alone, strict=True))
    assert difference(*both) > 2


def test_a_seed_makes_the_same_picture_again(http, difference):
    first = http.get("/imagine", params={"prompt": "a green heart"})
    assert (
        0
        < float(first.headers["server-timing"].removeprefix("draw;dur="))
        < 1000 * first.elapsed.total_seconds()
    )
    again = http.get("/imagine", params={"prompt": "a green heart", "seed": first.headers["x-seed"]})
    assert difference(again.content, first.content) == 0


def test_options_and_warnings_go_to_the_replica_and_back(http, difference):
    route, long = "/v1/images/generations", "a red circle on a white background" + ", drawn with care" * 30
    body = {"prompt": f"({long}:1.2) BREAK flat", "prompt_syntax": "weighted", "seed": -1, "clip_skip": 1}
    body |= {"scheduler": "DPMSolverMultistepSDE", "sigmas": "karras", "guidance_rescale": 0.3}
    first = http.post(route, json=body).json()
    assert first["warnings"] == []
    (image,) = first["data"]
    again, plain = (
        http.post(route, json=body | {"seed": image["seed"], "prompt_syntax": syntax}).json()
        for syntax in ("weighted", "plain")
    )
    files = [base64.b64decode(each["data"][0]["b64_json"]) for each in (first, again, plain)]
    assert difference(files[0], files[1]) <= 2
    assert difference(files[0], files[2]) > 2
    assert [each["code"] for each in plain["warnings"]] == ["weights_ignored"]
    file = http.get("/imagine", params={"prompt": "a", "negative_prompt": "blue", "guidance": 1})
    assert file.headers["x-warnings"] == "negative_prompt_ignored"
    refused = http.post(route, json=body | {"clip_skip": 3})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "clip_skip")


def test_concurrent_requests_do_not_disturb_each_other(http, difference):
    """Different steps and sizes at once: a shared scheduler would fail, or draw something else."""
    queries = [
        {
            "prompt": f"a red {shape} on a white background",
            "seed": number,
            "steps": 8 + number,
            "img_size": size,
        }
        for number, (shape, size) in enumerate(
            [("circle", 64), ("square", 64), ("circle", 96), ("heart", 64)] * 2
        )
    ]
    alone = [http.get("/imagine", params=query) for query in queries]
    with ThreadPoolExecutor(len(queries)) as pool:
        together = list(pool.map(lambda query: http.get("/imagine", params=query), queries))
    assert {answer.status_code for answer in together} == {200}
    for one, other in zip(alone, together, strict=True):
        assert difference(one.content, other.content) <= 2


def test_readyz_tells_what_computes(http, running):
    body = http.get("/readyz").json()
    assert body["ready"] is True
    assert body["phase"] == "ready"
    assert body["model"]["uri"] == "bundled://shapes"
    assert body["versions"]["ray"] == running.resource.spec.image.ray_version
    assert {"import", "weights", "pipeline"} <= set(body["load_seconds"])


def test_startz_tells_how_each_replica_started_and_what_its_first_picture_took(http, running, eventually):
    assert http.get("/imagine", params={"prompt": "a red circle", "steps": 2}).status_code == 200
    (replica,) = running.replicas()

    def report():
        return http.get("/startz").json()["starts"][replica["replica_id"]]

    eventually(lambda: report()["first_picture_seconds"] is not None)
    found = report()
    assert found["phase"] == ""
    assert list(found["seconds"]) == ["import", "weights", "pipeline", "warmup"]
    assert found["since"] == pytest.approx(found["began"] + sum(found["seconds"].values()))
    assert found["seconds"] == http.get("/readyz").json()["load_seconds"]
    assert replica["node_ip"], "by which the operator finds the pod"


def test_healthz_models_and_docs(http):
    assert http.get("/healthz").json() == {"status": "alive"}
    assert http.get("/v1/models").json()["data"][0]["id"] == "bundled://shapes"
    assert http.get("/docs").status_code == 200
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/imagine", "/v1/images/generations", "/readyz"} <= set(paths)


IMAGINE = ("GET", "/imagine")
GENERATE = ("POST", "/v1/images/generations")


@pytest.mark.parametrize(
    ("route", "sent", "param", "says"),
    [
        (IMAGINE, {}, "prompt", "required"),
        (IMAGINE, {"prompt": ""}, "prompt", "got 0 characters"),
        (IMAGINE, {"prompt": "a", "img_size": "7"}, "img_size", "got 7: must be a multiple of 8"),
        (IMAGINE, {"prompt": "a", "img_size": "0"}, "img_size", "got 0"),
        (IMAGINE, {"prompt": "a", "img_size": "80000"}, "img_size", "from 64 to 1024"),
        (
            IMAGINE,
            {"prompt": "a", "img_size": "big"},
            "img_size",
            'got "big": Input should be a valid integer',
        ),
        (IMAGINE, {"prompt": "a", "typo": "1"}, "typo", "unknown field"),
        (IMAGINE, {"prompt": "a", "guidance": "nan"}, "guidance", "must be from 0 to 50"),
        (IMAGINE, {"prompt": "a", "seed": "-2"}, "seed", "greater than or equal to -1"),
        (IMAGINE, {"prompt": "a", "seed": str(2**53)}, "seed", "less than or equal to 9007199254740991"),
        (IMAGINE, {"prompt": "a", "steps": "1000"}, "steps", "from 1 to 100"),
        (GENERATE, {}, "prompt", "required"),
        (GENERATE, {"prompt": "  "}, "prompt", "all blank"),
        (GENERATE, {"prompt": 5}, "prompt", "got a int: Input should be a valid string"),
        (GENERATE, {"prompt": "a", "size": "7x7"}, "size", "got 7"),
        (GENERATE, {"prompt": "a", "size": "big"}, "size", "must be WIDTHxHEIGHT"),
        (GENERATE, {"prompt": "a", "n": 99}, "n", "must be from 1 to 4"),
        (GENERATE, {"prompt": "a", "n": "1"}, "n", "valid integer"),
        (GENERATE, {"prompt": "a", "model": "dall-e-3"}, "model", "must be 'bundled://shapes'"),
        (GENERATE, {"prompt": "a", "typo": 1}, "typo", "unknown field"),
        (GENERATE, {"prompt": "a", "response_format": "url"}, "response_format", "b64_json"),
        (GENERATE, [], None, "body"),
    ],
)
def test_invalid_request_is_400_with_field_value_and_rule(http, route, sent, param, says):
    method, path = route
    answer = http.request(method, path, **({"params": sent} if method == "GET" else {"json": sent}))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert says in error["message"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "body", ["", "{", '{"prompt": NaN}', "\xff"], ids=["empty", "cut", "NaN", "not UTF-8"]
)
def test_what_is_not_json_is_400(http, body):
    answer = http.post(
        "/v1/images/generations", content=body.encode("latin-1"), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/imagine", 405, "GET, HEAD, OPTIONS"),
        ("GET", "/v1/images/generations", 405, "POST, OPTIONS"),
        ("GET", "/nope", 404, None),
    ],
)
def test_wrong_method_and_path_are_json(http, method, path, status, allow):
    answer = http.request(method, path)
    assert answer.status_code == status
    assert answer.headers.get("allow") == allow
    assert path in answer.json()["error"]["message"]


def test_prompts_are_in_no_log(http, running):
    secret = "zebra-crossing"
    http.get("/imagine", params={"prompt": secret, "steps": 1})
    http.get("/imagine", params={"prompt": secret, "steps": 0})
    http.post("/v1/images/generations", json={"prompt": [secret]})
    logs = [path for path in running.local.ray.folder.rglob("*") if path.is_file() and "logs" in path.parts]
    assert any("/imagine" in path.read_text(errors="replace") for path in logs)
    assert [path.name for path in logs if secret in path.read_text(errors="replace")] == []


def test_request_id_of_the_client_is_kept(http):
    assert http.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}], ids=["none", "wrong"])
def test_the_dashboard_wants_the_token(running, headers):
    answer = httpx.get(f"{running.local.ray.dashboard}/api/serve/applications/", headers=headers)
    assert answer.status_code in {401, 403}


def test_phases_are_told_in_order(running):
    told = [phase for phase in running.phases if phase != "load the model"]
    assert told == ["start Ray", "apply the Serve config", "start the application"]
