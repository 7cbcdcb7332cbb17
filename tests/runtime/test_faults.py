# SPDX-License-Identifier: Apache-2.0
"""A lost replica, and the ingress's report about it."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

SLOW = {"prompt": "a red circle", "img_size": 256, "steps": 100}


@pytest.fixture
def exported(running):
    """Values of the metrics that Ray exports, by name and labels of ours."""
    (option,) = [each for each in running.local.ray.process.args if "metrics-export-port" in str(each)]
    port = option.partition("=")[2]

    def read(name, **labels):
        found = 0.0
        for line in httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines():
            if line.startswith(f"ray_{name}") and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                found += float(re.search(r" (\S+)$", line)[1])
        return found

    return read


def test_a_lost_replica_is_told_and_replaced(http, running):
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(http.get, "/imagine", params=SLOW)
        streamed = pool.submit(
            http.post,
            "/v1/images/generations",
            json={"prompt": "a", "size": "256x256", "num_inference_steps": 100, "stream": True},
        )
        time.sleep(2)
        for replica in running.replicas():
            os.kill(replica["pid"], signal.SIGKILL)
        answer = plain.result()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unavailable"
    assert answer.headers["retry-after"]
    assert answer.headers["x-request-id"]
    assert "event: error" in streamed.result().text
    assert http.get("/imagine", params={"prompt": "a", "steps": 2}).status_code == 200


def test_ray_exports_what_the_ingress_counts(http, exported, eventually):
    http.get("/imagine", params={"prompt": "a", "steps": 0})
    eventually(lambda: exported("sd_http_requests_total", route="/imagine", status="400") > 0)
    assert exported("sd_http_rejections_total", reason="invalid") > 0
    assert exported("sd_http_request_seconds_count", route="/imagine") > 0
