# SPDX-License-Identifier: Apache-2.0
"""The operator derives the problem of a model from the class names of the runtime's errors."""

import traceback

import pytest

from sd_operator.ray.traceback import RuntimeProblem, runtime_problem
from sd_runtime import errors


@pytest.mark.parametrize("problem", RuntimeProblem)
def test_the_operator_reads_the_runtimes_errors(problem):
    """As Ray's controller hands them over: a traceback inside the message of another one."""
    words = f"model.uri: got 'hf://a/b': {problem.name}"
    try:
        raise getattr(errors, problem.value)(words)
    except errors.RuntimeFailure:
        inner = traceback.format_exc()
    message = (
        f"A replica failed to start with exception. Retrying 2 more time(s). Error:\nRuntimeError: {inner}"
    )
    assert runtime_problem(message) == (problem, words)


def test_every_error_about_the_model_is_known():
    told = {errors.ModelUnavailable, *errors.ModelUnavailable.__subclasses__(), errors.ConfigError}
    assert {each.__name__ for each in told} == set(RuntimeProblem)
