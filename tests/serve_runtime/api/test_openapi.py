# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document and the application keep what they promise each other."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from sd_runtime.http_api import application

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
