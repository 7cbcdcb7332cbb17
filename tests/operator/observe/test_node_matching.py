# SPDX-License-Identifier: Apache-2.0
"""The nodes that can run a pod, by the rules of the scheduler."""

import pytest

from sd_operator.observe.node_matching import accepts
from sd_operator.observe.nodes import Node

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def node(**labels):
    return Node("a", labels=labels)


def wants(*expressions, **term):
    terms = [{"matchExpressions": list(expressions), **term}]
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}}}


@pytest.mark.parametrize(
    ("label", "operator", "values", "matches"),
    [
        ("8", "Gt", ["4"], True),
        ("4", "Gt", ["4"], False),
        ("-8", "Lt", ["-4"], True),
        ("+8", "Gt", ["4"], True),
        ("a100", "Gt", ["4"], False),
        ("a100", "Lt", ["4"], False),
        ("4.5", "Gt", ["4"], False),
        ("1_000", "Gt", ["4"], False),
        (" 8", "Gt", ["4"], False),
        ("٨", "Gt", ["4"], False),
        ("", "Lt", ["4"], False),
        ("9" * 19, "Gt", ["4"], False),
        ("9" * 5000, "Gt", ["4"], False),
        ("8", "Gt", ["many"], False),
        ("8", "Gt", [], False),
        ("8", "Gt", None, False),
        ("8", "Lt", ["9", "10"], False),
    ],
)
def test_only_whole_numbers_of_64_bits_are_compared(label, operator, values, matches):
    expression = {"key": "count", "operator": operator, "values": values}
    assert accepts(node(count=label), wants(expression)) is matches


@pytest.mark.parametrize("operator", ["Gt", "Lt"])
def test_a_node_without_the_label_matches_no_number(operator):
    assert not accepts(node(), wants({"key": "count", "operator": operator, "values": ["4"]}))


def test_a_term_without_demands_matches_no_node():
    assert not accepts(node(), wants())
    assert accepts(node(), {})
