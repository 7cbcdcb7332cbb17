# SPDX-License-Identifier: Apache-2.0
"""Random requests for a runtime: valid, almost valid and invalid.

The same seed gives the same requests.

Valid requests are cheap to generate, so that thousands of them can go through a real service.
"""

import json
import random
from dataclasses import dataclass, field
from typing import Any

NAMED = {200, 202, 204, 304, 400, 404, 405, 406, 408, 409, 413, 415, 429, 503, 504}
"""Statuses that a response may have; 500 only as `generation_failed`."""

_FAILED, _ERRORS = 500, 400
_FIELDS = {"message", "type", "param", "code", "request_id"}

_METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")
_PATHS = (
    "/imagine",
    "/v1/images/generations",
    "/v1/jobs",
    "/v1/jobs/job-0",
    "/v1/jobs/job-0/images/0",
    "/v1/jobs/%00/images/-1",
    "/v1/models",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/../etc/passwd",
    "/" + "a" * 3000,
)
_RUBBISH: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2**31,
        2**53,
        2**64,
        10**400,
        0.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *("", " ", "0", "1e9", "null", "\0", "\ud800", "é" * 10, "🔴", "x" * 3000, "../..", "<script>"),
    *([], [[]], ["a"] * 100, {}, {"a": {"a": {}}}),
)
_GOOD: dict[str, tuple[Any, ...]] = {
    "prompt": ("a red circle", "ein blaues Quadrat", "🔴", "a (red:1.3) [circle] BREAK " + "blue " * 90),
    "prompt_syntax": ("plain", "weighted"),
    "n": (1, 2),
    "size": ("64x64", "auto", "72x64"),
    "seed": (-1, 0, 7, 2**53 - 2),
    "scheduler": ("Euler", "DPMSolverMultistepSDE", "DPMSolverSinglestepSDE", "LCM"),
    "sigmas": ("karras", "exponential", "beta"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "rescale_betas_zero_snr": (True, False),
    "guidance_rescale": (0, 0.7),
    "clip_skip": (0, 1),
    "num_inference_steps": (1, 2),
    "guidance_scale": (0, 1.5, 4),
    "negative_prompt": ("", "text"),
    "output_format": ("png", "jpeg", "webp"),
    "output_compression": (0, 50, 100),
    "stream": (True, False),
    "partial_images": (0, 3),
    "response_format": ("b64_json",),
    "quality": ("auto", "hd"),
    "user": ("me",),
}
_GOOD_QUERY: dict[str, tuple[Any, ...]] = {
    "prompt": _GOOD["prompt"],
    "img_size": (64, 72),
    "seed": _GOOD["seed"],
    "steps": (1, 2),
    "guidance": _GOOD["guidance_scale"],
    "negative_prompt": _GOOD["negative_prompt"],
}
_HEADERS: dict[str, tuple[str, ...]] = {
    "accept": ("*/*", "image/png", "image/*;q=x", "application/json", ",;,", "image/webp;q=0"),
    "x-request-id": ("mine", "", "a b", "x" * 500),
    "if-none-match": ("*", '"x"', "W/", ","),
    "content-type": (
        "application/json",
        "text/plain",
        "application/json; charset=latin-1",
        "multipart/form-data",
    ),
}


@dataclass(frozen=True)
class RandomRequest:
    """One request, as an HTTP client sends it."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for httpx's `request`."""
        return {
            "method": self.method,
            "url": self.path,
            "params": self.query,
            "content": self.content,
            "headers": self.headers,
        }


def named(status: int, body: str) -> bool:
    """Return whether a response is permitted: its status has a name, and every JSON error has OpenAI's format."""
    if status < _ERRORS:
        return status in NAMED
    try:
        error = json.loads(body)["error"]
        complete = set(error) == _FIELDS and bool(error["message"])
    except (ValueError, KeyError, TypeError):
        return False
    return complete and (status in NAMED or (status == _FAILED and error["code"] == "generation_failed"))


def random_request(chance: random.Random) -> RandomRequest:
    """Return the next request of a sequence."""
    kind = chance.random()
    headers = {name: chance.choice(values) for name, values in _HEADERS.items() if chance.random() < 0.2}  # noqa: PLR2004
    if kind < 0.4:  # noqa: PLR2004
        query = {name: _text(value) for name, value in _fields(chance, _GOOD_QUERY).items()}
        return RandomRequest("GET", "/imagine", query, headers=headers)
    if kind < 0.9:  # noqa: PLR2004
        path = chance.choice(("/v1/images/generations", "/v1/images/generations", "/v1/jobs"))
        headers = {"content-type": "application/json", **headers}
        return RandomRequest("POST", path, content=_body(chance), headers=headers)
    return RandomRequest(
        chance.choice(_METHODS), chance.choice(_PATHS), content=chance.randbytes(5), headers=headers
    )


def _fields(chance: random.Random, good: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Return some fields, most of them valid. In half of the cases all are valid."""
    spoil = chance.choice((0.0, 0.15))
    steps = "steps" if "steps" in good else "num_inference_steps"
    chosen = [name for name in good if name in {"prompt", steps} or chance.random() < 0.3]  # noqa: PLR2004
    fields = {
        name: chance.choice(_RUBBISH if chance.random() < spoil else good[name])
        for name in chosen
        if chance.random() >= spoil / 3
    }
    if chance.random() < spoil / 3:
        fields[chance.choice(("typo", "", "\0", "x" * 300))] = chance.choice(_RUBBISH)
    return fields


def _body(chance: random.Random) -> bytes:
    content = json.dumps(_fields(chance, _GOOD)).encode()
    if chance.random() < 0.9:  # noqa: PLR2004
        return content
    cut = chance.randrange(len(content))
    return content[:cut] + chance.randbytes(chance.randrange(4)) + content[cut + chance.randrange(3) :]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()
