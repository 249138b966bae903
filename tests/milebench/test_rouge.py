"""ROUGE-L as the `rouge` package computes it, and as `rouge-score` does."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.milebench.rouge import rouge_l, rouge_score_l

# Prediction, reference, and what rouge 1.0.1 answers.
MEASURED = [
    ("the cat sat on the mat", "the cat is on the mat", 0.7999999950000002),
    ("red red red", "red", 0.999999995),
    ("it is 3.5 red", "3.5 red it is", 0.999999995),
    ("a b c d. b a", "b a d. c", 0.999999995),
    ("a b c", "d e", 0.0),
    (" . .5", "5. 5", 0.6666666622222223),
    (
        "the tiny cylinder changed to brown",
        "the small cylinder turned brown the tiny object became brown",
        0.4285714236734694,
    ),
]


@pytest.mark.parametrize(("prediction", "reference", "value"), MEASURED)
def test_it_is_the_rouge_packages(prediction: str, reference: str, value: float) -> None:
    assert rouge_l(prediction, reference) == value


def test_words_are_counted_once_by_rouge_and_each_time_by_rouge_score() -> None:
    assert rouge_l("red red red", "red") == pytest.approx(1.0)
    assert rouge_score_l("red red red", "red") == pytest.approx(0.5)


def test_rouge_score_ignores_punctuation_and_case() -> None:
    assert rouge_score_l("Red, cube!", "red cube") == 1.0


@pytest.mark.parametrize("text", ["", "...", " "])
def test_a_text_without_words_scores_zero(text: str) -> None:
    assert rouge_l(text, "a b") == 0.0
    assert rouge_l("a b", text) == 0.0
    assert rouge_score_l(text, "a b") == 0.0


def oracle(prediction: str, reference: str) -> float:
    """The definition, by recursion: sentences at periods, one LCS per pair, their words united, sets compared."""

    def sentences(text: str) -> list[tuple[str, ...]]:
        return [tuple(" ".join(part.split()).split(" ")) for part in text.split(".") if part]

    @cache
    def length(x: tuple[str, ...], y: tuple[str, ...]) -> int:
        if not x or not y:
            return 0
        return length(x[:-1], y[:-1]) + 1 if x[-1] == y[-1] else max(length(x[:-1], y), length(x, y[:-1]))

    def words(x: tuple[str, ...], y: tuple[str, ...]) -> set[str]:
        if not x or not y:
            return set()
        if x[-1] == y[-1]:
            return words(x[:-1], y[:-1]) | {x[-1]}
        return words(x[:-1], y) if length(x[:-1], y) > length(x, y[:-1]) else words(x, y[:-1])

    predicted, referred = sentences(prediction), sentences(reference)
    if not predicted or not referred:
        return 0.0
    common = set().union(*(words(x, y) for x in referred for y in predicted))
    precision = len(common) / len({word for sentence in predicted for word in sentence})
    recall = len(common) / len({word for sentence in referred for word in sentence})
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8))


TEXTS = st.text(st.sampled_from("abc .  "), max_size=24)


@given(prediction=TEXTS, reference=TEXTS)
def test_it_is_the_plain_one(prediction: str, reference: str) -> None:
    assert rouge_l(prediction, reference) == oracle(prediction, reference)


@given(prediction=st.text(), reference=st.text())
def test_any_two_texts_score_between_0_and_1(prediction: str, reference: str) -> None:
    assert 0.0 <= rouge_l(prediction, reference) <= 1.0
    assert 0.0 <= rouge_score_l(prediction, reference) <= 1.0
