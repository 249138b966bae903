"""Claims about the choice of positions."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lookm.eviction import evicted_positions, prior_positions, top_positions, with_recent


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_top_positions_break_ties_in_favour_of_the_earlier(scores: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(0, len(scores)))
    expected = sorted(range(len(scores)), key=lambda j: (-scores[j], j))[:n]
    assert top_positions(torch.tensor([scores]).float(), n).tolist() == [expected]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30), st.data())
def test_prior_positions_take_all_marked_before_any_other(tokens: list[tuple[int, bool]], data: st.DataObject) -> None:
    n = data.draw(st.integers(0, len(tokens)))
    scores = torch.tensor([[float(score) for score, _ in tokens]])
    first = torch.tensor([marked for _, marked in tokens])
    expected = sorted(range(len(tokens)), key=lambda j: (not tokens[j][1], -tokens[j][0], j))[:n]
    assert prior_positions(scores, (~first).to(torch.uint8), n).tolist() == [expected]


def test_prior_survives_scores_that_a_sum_in_float32_would_swallow() -> None:
    scores = torch.tensor([[3e8, 1.0, 2.0, 3.0]])
    text = torch.tensor([False, True, True, True])
    assert prior_positions(scores, (~text).to(torch.uint8), 2).tolist() == [[3, 2]]


def test_with_recent_sorts_and_accepts_an_empty_window() -> None:
    important = torch.tensor([[4, 0], [1, 3]])
    assert with_recent(important, 8, 2).tolist() == [[0, 4, 6, 7], [1, 3, 6, 7]]
    assert with_recent(important, 8, 0).tolist() == [[0, 4], [1, 3]]


@given(st.integers(1, 20), st.data())
def test_evicted_is_the_complement_of_kept(length: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, length))
    heads = [sorted(data.draw(st.permutations(range(length)))[:n]) for _ in range(3)]
    evicted = evicted_positions(torch.tensor(heads, dtype=torch.int64).view(3, n), length)
    assert evicted.tolist() == [sorted(set(range(length)) - set(kept)) for kept in heads]
