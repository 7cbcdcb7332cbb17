# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_runtime.startup import StartReport


async def test_models_tells_what_a_request_gets_and_may_ask(http):
    (card,) = (await http.get("/v1/models")).json()["data"]
    assert (card["id"], card["object"], card["loras"]) == ("bundled://shapes", "model", ["ink", "oil"])
    assert card["limits"]["max_steps"] == 100
    assert card["schedulers"] == {"Euler": ["sigmas", "timestep_spacing"], "LCM": []}
    # The service's wish over the model's own.
    assert card["defaults"] == {
        "width": 64,
        "height": 64,
        "steps": 4,
        "guidance": 4.0,
        "scheduler": "Euler",
        "prompt_syntax": "plain",
    }
    assert card["quantization"] == "fp8"
    assert (card["device"], card["dtype"], card["optimizations"]) == ("cpu", "float32", {"compile": False})


async def test_a_model_is_found_by_its_name(http):
    (card,) = (await http.get("/v1/models")).json()["data"]
    for name in ("bundled://shapes", "bundled%3A%2F%2Fshapes"):
        assert (await http.get(f"/v1/models/{name}")).json() == card
    missing = await http.get("/v1/models/dall-e-3")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_the_end_of_the_application_stops_its_jobs(app, http, backend):
    backend.gate.clear()
    async with app.router.lifespan_context(app):
        url = (await http.post("/v1/jobs", json={"prompt": "a"})).headers["location"]
    assert backend.cancelled == 1
    assert (await http.get(url)).json()["state"] == "cancelled"


async def test_models_is_there_without_a_replica(http, backend):
    backend.phase = "scaled-to-zero"
    (card,) = (await http.get("/v1/models")).json()["data"]
    assert (card["id"], card["device"]) == ("bundled://shapes", None)


@pytest.mark.parametrize(
    ("phase", "status"), [("ready", 200), ("scaled-to-zero", 200), ("loading", 503), ("starting", 503)]
)
async def test_readyz_follows_the_model(http, backend, phase, status):
    backend.phase = phase
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["phase"]) == (status, phase)
    assert ("load_seconds" in answer.json()) == (phase == "ready")


async def test_startz_tells_how_far_each_start_is(http, backend):
    assert (await http.get("/startz")).json() == {"starts": {}}
    backend.started = {"k3v9x0qz": StartReport(100.0, {"import": 10.0}, "weights", 110.0)}
    assert (await http.get("/startz")).json()["starts"] == {
        "k3v9x0qz": {
            "began": 100.0,
            "seconds": {"import": 10.0},
            "phase": "weights",
            "since": 110.0,
            "first_picture_seconds": None,
            "ray": "",
            "revision": "",
            "warnings": [],
            "refused_loras": {},
            "batching": "",
        }
    }


async def test_healthz_knows_nothing_of_the_model(http, backend):
    backend.phase = "starting"
    assert (await http.get("/healthz")).json() == {"status": "alive"}


async def test_every_operation_has_documented_errors_and_no_422(http):
    document = (await http.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "422" not in operation["responses"]
            refused = operation["responses"]["400"]
            if method == "head":
                assert "content" not in refused, path
            else:
                example = refused["content"]["application/json"]["example"]
                assert set(example["error"]) == {"message", "type", "param", "code", "request_id"}
    assert document["components"]["schemas"]["GenerationBody"]["examples"]
    assert (await http.get("/docs")).status_code == 200


async def test_every_json_answer_has_an_example(http):
    document = (await http.get("/openapi.json")).json()

    def exemplified(content):
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name == "ModelList":
            name = "ModelCard"
        return "example" in content or "example" in document["components"]["schemas"].get(name, {})

    without = [
        (path, method, status)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        if not exemplified(answer.get("content", {}).get("application/json", {"example": "no JSON"}))
    ]
    assert without == []


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/imagine", 405), ("GET", "/nope", 404), ("PUT", "/v1/jobs", 405)]
)
async def test_wrong_method_and_path_are_json(http, method, path, status):
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert path in answer.json()["error"]["message"]


async def test_a_client_keeps_its_request_id_and_others_get_one(http):
    ids = [(await http.get("/healthz")).headers["x-request-id"] for _ in range(2)]
    assert len(set(ids)) == 2
    assert "x-request-id" not in (await http.get("/healthz", headers={"x-request-id": "mine"})).headers
