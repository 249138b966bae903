"""Logits that are not finite end a row, and only that row."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LogitsProcessorList

from lookm.greedy import NO_TOKEN, Answers, GreedyChoice


def choice_of(rows: int) -> GreedyChoice:
    return GreedyChoice(LogitsProcessorList(), torch.zeros(rows, 2, dtype=torch.long), 4, 1)


@given(
    st.lists(st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=4), min_size=1, max_size=3),
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    st.integers(0, 3),
)
def test_a_row_without_finite_logits_gets_no_token(rows: list[list[float]], broken: float, place: int) -> None:
    logits = torch.tensor([*rows, [0.0] * 4])
    if broken == -float("inf"):
        logits[-1] = broken
    else:
        logits[-1, place] = broken
    tokens = choice_of(len(rows) + 1).next(logits).tolist()
    assert tokens == [max(range(4), key=row.__getitem__) for row in rows] + [NO_TOKEN]


def test_forbidden_tokens_are_no_broken_logits() -> None:
    assert choice_of(1).next(torch.tensor([[-torch.inf, 1.0, -torch.inf]])).tolist() == [1]


def test_an_answer_ends_before_the_token_that_is_none() -> None:
    answers = Answers(2, {9})
    answers.add(torch.tensor([[1, 2], [NO_TOKEN, 9], [5, 5]]))
    assert answers.tokens == [[1], [2, 9]]
    assert answers.finite == [False, True]
    assert answers.going_on() == []
