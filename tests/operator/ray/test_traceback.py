# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.ray.traceback import RuntimeProblem, reason, runtime_problem

MESSAGE = """Deploying app 'imagine' failed with exception:
The deployment failed to start 3 times in a row.
RuntimeError: Traceback (most recent call last):
  File "replica.py", line 10, in initialize
    raise RuntimeError(traceback.format_exc()) from None
sd_runtime.errors.ModelUnavailable: model.uri: got 'file:///a': there is no folder /a
"""


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (MESSAGE, "sd_runtime.errors.ModelUnavailable: model.uri: got 'file:///a': there is no folder /a"),
        ("no exception at all\n", "no exception at all"),
        ("", "Ray gives no reason"),
    ],
)
def test_reason_is_the_last_exception(message, told):
    assert reason(message) == told


def test_colours_and_rays_own_shell_are_left_out():
    message = "\x1b[36mray::build()\x1b[39m\nray.exceptions.RayTaskError(RuntimeError): \x1b[36mray::build()"
    assert reason("KeyError: 'a'\n" + message) == "KeyError: 'a'"


def test_an_error_of_the_runtime_is_told_by_its_class():
    assert runtime_problem(MESSAGE) == (
        RuntimeProblem.UNAVAILABLE,
        "model.uri: got 'file:///a': there is no folder /a",
    )
    assert runtime_problem("ModuleNotFoundError: No module named 'nope'") is None
    assert runtime_problem("") is None
