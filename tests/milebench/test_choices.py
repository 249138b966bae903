"""The official choice matching, quirk by quirk."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.milebench.official import choice_key, match_choice, normalise


def official(answer: str, *choices: str) -> str:
    return match_choice(normalise(answer), [normalise(choice) for choice in choices])


def test_keys_run_on_beyond_z() -> None:
    keys = {0: "A", 25: "Z", 26: "AA", 51: "AZ", 52: "BA", 77: "BZ", 78: "B[", 84: "Ba"}
    assert {index: choice_key(index) for index in keys} == keys


@pytest.mark.parametrize(
    ("answer", "choices", "key"),
    [
        ("", ("x", "y"), "C"),  # an empty answer is C
        ("?!", ("x", "y"), "C"),
        ("B. Yes", ("No", "Yes"), "B"),
        ("A. 1\nB. 2", ("1", "2"), "A"),  # the first place wins
        ("It is yes", ("No", "Yes"), "B"),
        ("none of these", ("No", "none of these"), "A"),  # inside a word, and the earlier choice at the same place
        ("the red cube", ("the red", "the red cube"), "A"),
        ("mo ving", ("x", "moving"), "B"),  # spaces do not count
        ("3.5", ("3.5", "7"), ""),  # a special character is never right by itself
        ("A. 3.5", ("3.5", "7"), "A"),
        ("$350", ("1", "$350"), ""),
        ("b", ("x", "y"), "B"),
        ("The answer is B", ("x", "y"), "AB"),
        ("C, D", ("x", "y", "z"), "C"),
        ("img 64", tuple(f"img {number}" for number in range(1, 91)), "F"),
        ("AB: img 28", tuple(f"img {number}" for number in range(1, 91)), "B"),
        ("Ba", tuple(f"pic {number}" for number in range(1, 91)), "BA"),
    ],
)
def test_quirks(answer: str, choices: tuple[str, ...], key: str) -> None:
    assert official(answer, *choices) == key


def oracle(answer: str, choices: list[str]) -> str:
    """MILEBENCH.md's sentence, with regular expressions as the original has them."""

    def escaped(text: str) -> str:
        return re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", normalise(text))

    if answer == "":
        return "C"
    options = {choice_key(index): choice for index, choice in enumerate(choices)}
    found = re.search("|".join(escaped(f"{key} {choice}") for key, choice in options.items()), answer, re.DOTALL)
    if options and found:
        return found[0][0].upper()
    bare = {key: escaped(choice).replace(" ", "") for key, choice in options.items()}
    found = re.search("|".join(bare.values()), answer.replace(" ", ""), re.DOTALL)
    if options and found:
        for key, choice in bare.items():
            if found[0].strip() == choice:
                return key.upper()
    if len(answer) in (1, 2) and answer.upper() in options:
        return answer.upper()
    return "".join(character.upper() for character in answer if character.upper() in options)


WORDS = st.lists(
    st.sampled_from(["a", "b", "c", "no", "none", "3.5", "$350", "1", "12", "c d", "ab", "(x)", "A.", "Ba", "i"]),
    min_size=0,
    max_size=4,
).map(" ".join)


@given(answer=WORDS, choices=st.lists(WORDS, max_size=6))
def test_it_is_the_plain_one(answer: str, choices: list[str]) -> None:
    normalised = [normalise(choice) for choice in choices]
    assert match_choice(normalise(answer), normalised) == oracle(normalise(answer), normalised)


@given(answer=st.text(max_size=12), choices=st.lists(st.text(max_size=4), min_size=1, max_size=90))
def test_it_is_the_plain_one_on_any_text(answer: str, choices: list[str]) -> None:
    normalised = [normalise(choice) for choice in choices]
    assert match_choice(normalise(answer), normalised) == oracle(normalise(answer), normalised)
