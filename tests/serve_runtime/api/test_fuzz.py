# SPDX-License-Identifier: Apache-2.0
"""Several hundred random requests. `benchmarks/fuzz.py` sends ten thousand to a real service."""

import random
from collections import Counter

import pytest

from sd_runtime.api.errors import Unavailable
from sd_runtime.api.image_backend import QueueFull
from sd_runtime.errors import GenerationFailed, InvalidRequest
from sd_testkit.generators.random_requests import named, random_request

FAULTS = (QueueFull(), Unavailable(504, "late"), GenerationFailed("nan"), InvalidRequest("size: no", "size"))


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_comes_but_the_named_answers(http, backend, seed):
    chance, seen = random.Random(seed), Counter()
    for _ in range(250):
        request = random_request(chance)
        backend.error = chance.choice(FAULTS) if chance.random() < 0.1 else None
        answer = await http.request(**request.arguments())
        seen[answer.status_code] += 1
        assert named(answer.status_code, answer.text), (request, answer.status_code, answer.text)
        assert answer.status_code < 400 or len(answer.text) < 1000
    assert seen[200] > 40
    assert seen[400] > 40
