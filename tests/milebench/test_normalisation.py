"""MileBench's normalisation and its quirks."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.milebench.official import MARKS, normalise


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        (" Yes\n", "yes"),
        ("a-b", "a b"),  # a mark between letters becomes a space
        ("a-b c- d", "ab c d"),  # the same mark next to a space anywhere: deleted everywhere
        ("a\n-b", "a b"),  # a line break is a space
        ("12,345 a-b", "12345 ab"),  # digit-comma-digit: every mark is deleted
        ("No.", "no"),
        ("3.5.", "3.5"),
        ("U.S. 66", "us 66"),
        ("e.g.5", "eg.5"),
        ("$350", "$350"),
        ("'don't'", "don't"),
        ("“a”", "“a”"),
        ("100%: yes", "100%: yes"),
        ("?!", ""),
        ("", ""),
    ],
)
def test_examples(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


def test_only_32_periods_go() -> None:
    assert normalise("a." * 40) == "a" * 32 + "a." * 8
    assert normalise("." * 33) == "."


@pytest.mark.parametrize("text", ["." * 33, "' 'a"])
def test_it_is_not_idempotent_on_many_periods_and_nested_quotes(text: str) -> None:
    assert normalise(text) != normalise(normalise(text))


@given(st.text(st.sampled_from("abzABZ059 -,;?!$%:"), max_size=40))
def test_it_is_idempotent_without_periods_and_quotes(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def oracle(text: str) -> str:
    """MILEBENCH.md's sentence, one character at a time."""
    text = "".join(" " if character in "\n\t" else character for character in text).strip()
    result = ""
    for character in text:
        if character in MARKS:
            beside = any(pair in text for pair in (character + " ", " " + character))
            character = "" if beside or re.search(r"\d,\d", text) else " "
        result += character
    kept, removed = "", 0
    for place, character in enumerate(result):
        before_digit = place + 1 < len(result) and re.match(r"\d", result[place + 1]) is not None
        if character == "." and not before_digit and removed < 32:
            removed += 1
        else:
            kept += character
    return kept.strip("'").strip('"').strip().lower()


@given(st.one_of(st.text(), st.text(st.sampled_from("aB1. ,-'\"?/\n\t$"), max_size=60)))
def test_it_is_the_plain_one_on_any_text(text: str) -> None:
    assert normalise(text) == oracle(text)
