# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_runtime.readiness import Readiness, judge

READY = Readiness(ready=True, phase="ready")
LOADING = Readiness(ready=False, phase="loading")
STARTING = Readiness(ready=False, phase="starting")
AT_ZERO = Readiness(ready=True, phase="scaled-to-zero")


@pytest.mark.parametrize(
    ("replicas", "status", "scale_to_zero", "expected"),
    [
        ({}, "UPDATING", False, STARTING),
        ({"STARTING": 1}, "UPDATING", False, LOADING),
        ({"RUNNING": 1}, "HEALTHY", False, READY),
        ({"RUNNING": 1, "STARTING": 3}, "UPSCALING", False, READY),
        ({"STOPPING": 1}, "DOWNSCALING", False, STARTING),
        ({}, "HEALTHY", False, STARTING),
        ({}, "HEALTHY", True, AT_ZERO),
        ({"STOPPING": 1}, "DOWNSCALING", True, AT_ZERO),
        ({"STARTING": 1}, "UPSCALING", True, LOADING),
        ({}, "UPDATING", True, STARTING),
        ({}, "DEPLOY_FAILED", True, STARTING),
        ({}, "UNHEALTHY", True, STARTING),
    ],
)
def test_state_of_the_model(replicas, status, scale_to_zero, expected):
    assert judge(replicas, status, scale_to_zero=scale_to_zero) == expected
