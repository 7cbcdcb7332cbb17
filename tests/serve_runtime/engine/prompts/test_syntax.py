# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd_runtime.engine.prompts.syntax import has_weights, parse
from sd_runtime.errors import InvalidRequest


def weighted(text):
    """Sections as plain lists of (text, weight)."""
    return [[tuple(each) for each in section] for section in parse("prompt", text, "weighted")]


def near(number):
    return pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("a circle", [("a circle", 1)]),
        ("a (red) circle", [("a ", 1), ("red", 1.1), (" circle", 1)]),
        ("((red))", [("red", near(1.21))]),
        ("[red]", [("red", near(1 / 1.1))]),
        ("[(red)]", [("red", near(1))]),
        ("(red:1.5) circle", [("red", 1.5), (" circle", 1)]),
        ("(red: -.5 )", [("red", -0.5)]),
        ("(a (red:2) b:1.5)", [("a ", 1.5), ("red", 3), (" b", 1.5)]),
        ("((red:2))", [("red", near(2.2))]),
        ("(red)(blue)", [("redblue", 1.1)]),
        ("(never closed", [("never closed", 1.1)]),
        ("[never [closed", [("never ", near(1 / 1.1)), ("closed", near(1 / 1.21))]),
        ("closed) never]", [("closed) never]", 1)]),
        (r"\(red\) \[blue\] \\", [(r"(red) [blue] " + "\\", 1)]),
        (r"(a \(red\):1.2)", [("a (red)", 1.2)]),
        ("time 12:30:1.5)", [("time 12:30:1.5)", 1)]),
        ("(red:much)", [("red:much", 1.1)]),
        ("(red:0)", [("red", 0)]),
        ("", []),
    ],
    ids=str,
)
def test_brackets_weigh_what_they_hold(text, fragments):
    assert weighted(text) == [fragments]


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("red BREAK blue", [[("red", 1)], [("blue", 1)]]),
        ("BREAK blue", [[], [("blue", 1)]]),
        ("red BREAK", [[("red", 1)], []]),
        ("red\nBREAK BREAK blue", [[("red", 1)], [], [("blue", 1)]]),
        ("(red BREAK blue:2) green", [[("red", 2)], [("blue", 2), (" green", 1)]]),
        ("BREAKFAST, break", [[("BREAKFAST, break", 1)]]),
    ],
    ids=str,
)
def test_break_starts_a_section(text, sections):
    assert weighted(text) == sections


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("(red:11)", "11"),
        ("(red:-10.5)", "-10.5"),
        ("(red:1.2.3)", r"1\.2\.3"),
        ("((red:9):9)", "81"),
        ("(red:" + "9" * 400 + ")", "9{20}"),
    ],
    ids=lambda each: each[:12],
)
def test_a_weight_that_cannot_be_used_is_refused_without_the_prompt(text, got):
    with pytest.raises(
        InvalidRequest, match=f"^negative_prompt: got a weight of {got}: must be a number"
    ) as caught:
        parse("negative_prompt", "secret " + text, "weighted")
    assert caught.value.param == "negative_prompt"
    assert "secret" not in str(caught.value)


@given(st.text())
def test_plain_changes_nothing(text):
    assert parse("prompt", text, "plain") == (((text, 1.0),),)


@given(st.text("ab ()[]\\:.19\nBREAK"))
def test_any_text_is_read_or_refused(text):
    try:
        sections = weighted(text)
    except InvalidRequest:
        return
    kept = "".join(fragment for section in sections for fragment, _ in section)
    assert set(kept) <= set(text)
    assert len(kept) <= len(text)
    assert all(abs(weight) <= 10 for section in sections for _, weight in section)


@pytest.mark.parametrize("text", ["(red:1.2)", "((red))", "a BREAK b", "(a red:  1 ) b"])
def test_what_only_the_weighted_syntax_reads_is_found(text):
    assert has_weights(text)


@pytest.mark.parametrize("text", ["a circle (red)", "[sic]", "BREAKFAST", "at 12:30)", "f(x)"])
def test_usual_text_is_no_weight(text):
    assert not has_weights(text)
