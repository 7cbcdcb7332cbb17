# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document and the application match each other."""

import asyncio

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from sd_runtime.api import application
from sd_runtime.api.errors import Unavailable
from sd_runtime.api.image_backend import QueueFull
from sd_runtime.errors import GenerationFailed

# `positive_data_acceptance` is not among them: limits are live, so the document cannot hold them.
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]
FAULTS = {
    429: QueueFull(),
    500: GenerationFailed("the image contains NaN values"),
    503: Unavailable(503, "the replica was lost", 1),
    504: Unavailable(504, "not done within 1 s"),
}
bounded = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def takes_input(operation):
    return bool({"parameters", "requestBody"} & set(operation.definition.raw))


@pytest.mark.parametrize("mode", GenerationMode, ids=str)
def test_every_answer_is_a_documented_one(service, subtests, mode):
    """All operations of the document, with requests that keep its schemas and with ones that break them."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", application(service))
    for operation in (each.ok() for each in schema.get_all_operations()):
        if mode is GenerationMode.NEGATIVE and not takes_input(operation):
            continue
        strategy = operation.as_strategy(generation_mode=mode)

        @bounded
        @given(strategy)
        def check(case):
            case.call_and_validate(checks=CHECKS)

        with subtests.test(operation.label):
            check()


PROMPT = {"prompt": "a"}
SAMPLES = {"model": "bundled://shapes", "job_id": "job-1", "index": "0"}


class Provoked:
    """Requests that make an operation answer with a wanted status.

    Args:
        http: client of the application.
        backend: what fails where drawing has to.
        configure: changes the settings.
    """

    def __init__(self, http, backend, configure):
        self._http, self._backend, self._configure = http, backend, configure

    async def send(self, method, path, status):
        ask = getattr(self, f"_{status}", self._drawn)
        return await ask(method, path, status)

    async def _ask(self, method, path, **changes):
        path = path.replace("{model}", SAMPLES["model"])
        job = changes.pop("job", None) or SAMPLES["job_id"]
        path = path.replace("{job_id}", job).replace("{index}", SAMPLES["index"])
        arguments = {"json": PROMPT} if method == "post" and "content" not in changes else {}
        if path == "/imagine":
            arguments["params"] = PROMPT
        for name, value in changes.items():
            arguments[name] = {**arguments.get(name, {}), **value} if isinstance(value, dict) else value
        return await self._http.request(method, path, **arguments)

    async def _job(self):
        return (await self._http.post("/v1/jobs", json=PROMPT)).json()["id"]

    async def _drawn(self, method, path, status):
        """Success, or what drawing comes to."""
        self._backend.error = FAULTS.get(status)
        if status == 503:
            self._backend.phase = "loading"
            self._backend.starts = lost
        return await self._ask(method, path, job=None if self._backend.error else await self._job())

    async def _304(self, method, path, _):
        query = {"params": {"seed": 7}}
        tag = (await self._ask("get", path, **query)).headers["etag"]
        return await self._ask(method, path, headers={"if-none-match": tag}, **query)

    async def _400(self, method, path, _):
        return await self._ask(method, path, params={"typo": "1"})

    async def _404(self, method, path, _):
        return await self._ask(method, path.replace("{model}", "dall-e-3"))

    async def _406(self, method, path, _):
        return await self._ask(method, path, job=await self._job(), headers={"accept": "image/gif"})

    async def _408(self, method, path, _):
        self._configure(limits={"timeout_seconds": 1})

        async def never_ending():
            while True:
                yield b" "
                await asyncio.sleep(0.05)

        return await self._ask(method, path, content=never_ending())

    async def _409(self, method, path, _):
        self._backend.gate.clear()
        return await self._ask(method, path, job=await self._job())

    async def _413(self, method, path, _):
        return await self._ask(method, path, content=b" " * 2 * 1024 * 1024)

    async def _415(self, method, path, _):
        return await self._ask(method, path, content=b"{}", headers={"content-type": "text/plain"})


async def lost():
    raise FAULTS[503]


async def test_every_documented_status_comes_and_is_as_documented(app, http, backend, configure, subtests):
    """Each path, method and status of the document, HEAD included; what comes is held to its schema."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    seen = 0
    for operation in (each.ok() for each in schema.get_all_operations()):
        for status in map(int, operation.definition.raw["responses"]):
            backend.error, backend.phase = None, "ready"
            backend.gate.set()
            backend.__dict__.pop("starts", None)
            configure()
            with subtests.test(f"{operation.label} {status}"):
                method = operation.method.lower()
                answer = await Provoked(http, backend, configure).send(method, operation.path, status)
                assert answer.status_code == status, answer.text
                is_json = answer.headers.get("content-type") == "application/json" and answer.content
                if status >= 400 and method != "head" and operation.path != "/readyz":
                    assert is_json
                    error = answer.json()["error"]
                    assert set(error) == {"message", "type", "param", "code", "request_id"}
                    assert error["request_id"] == answer.headers["x-request-id"]
                    assert error["code"]
                elif is_json:
                    operation.validate_response(answer)
                assert not (method == "head" and answer.content)
            seen += 1
    assert seen > 60
