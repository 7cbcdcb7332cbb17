# SPDX-License-Identifier: Apache-2.0
import pytest
from pydantic import ValidationError

from sd_operator.settings import Settings


@pytest.mark.parametrize(
    ("environment", "served"),
    [
        ({}, ()),
        ({"WATCH_NAMESPACES": ""}, ()),
        ({"WATCH_NAMESPACES": "a, b,"}, ("a", "b")),
        ({"WATCH_OWN_NAMESPACE": "true", "NAMESPACE": "mine"}, ("mine",)),
        ({"NAMESPACE": "mine"}, ()),
    ],
)
def test_scope(monkeypatch, environment, served):
    for name, value in environment.items():
        monkeypatch.setenv(f"SDSERVICE_{name}", value)
    assert Settings().served_namespaces == served


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"WATCH_OWN_NAMESPACE": "true"}, "needs SDSERVICE_NAMESPACE"),
        ({"WATCH_OWN_NAMESPACE": "true", "NAMESPACE": "a", "WATCH_NAMESPACES": "b"}, "cannot both be set"),
    ],
)
def test_a_scope_that_says_two_things_is_refused(monkeypatch, environment, says):
    for name, value in environment.items():
        monkeypatch.setenv(f"SDSERVICE_{name}", value)
    with pytest.raises(ValidationError, match=says):
        Settings()
