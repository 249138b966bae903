"""Claims about the Triton kernels; `test_triton.py` runs them interpreted. On a GPU run this file as it is."""

import os

import pytest
import torch
from torch import Tensor

from lookm.kernels.best_match import best_match
from lookm.kernels.column_sums import column_sums
from lookm.merging import match_evicted
from lookm.statistics import Needs, attention_statistics, causal_log_sum_exp
from tests.lookm.oracle import attention
from tests.lookm.rounding import assert_close, cosine_roundings, gamma, sum_error

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]
"""The interpreter multiplies the bit patterns of bfloat16 as integers: only a GPU can check it."""

SHAPES = [(1, 1, 1, 64), (1, 2, 63, 64), (2, 1, 200, 80), (1, 3, 130, 128), (2, 2, 97, 8), (1, 1, 129, 20)]


def _states(kv_heads: int, group: int, length: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Queries and keys as they lie in a model: the heads of one token side by side."""
    generator = torch.Generator().manual_seed(length)
    queries = torch.randn(length, kv_heads * group, size, generator=generator).to(DEVICE, dtype).transpose(0, 1)
    keys = torch.randn(length, kv_heads, size, generator=generator).to(DEVICE, dtype).transpose(0, 1)
    return queries, keys


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_column_sums_squares_and_windows_equal_torch(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    queries, keys = _states(*shape, dtype)
    length, scaling, window = shape[2], shape[3] ** -0.5, max(1, shape[2] // 3)
    lse = causal_log_sum_exp(queries, keys, scaling)
    needs = Needs(sums=True, squares=True, windows=frozenset({window}))
    expected = attention_statistics(queries, keys, needs, log_sum_exp=lse)
    sums, squares = column_sums(queries, keys, lse, scaling, squares=True)
    recent, none = column_sums(queries, keys, lse, scaling, first=length - window)
    assert none is None
    assert squares is not None
    pairs = ((sums, expected.sums), (squares, expected.squares), (recent, expected.windows[window]))
    for (ours, theirs), power in zip(pairs, (1, 2, 1), strict=True):
        assert theirs is not None
        assert_close(ours, theirs, relative=2 * sum_error(queries, keys, power=power))  # both are rounded


def test_what_else_is_asked_for_changes_no_bit_and_two_runs_agree() -> None:
    queries, keys = _states(1, 2, 150, 64, torch.float16)
    lse = causal_log_sum_exp(queries, keys, 0.125)
    alone, _ = column_sums(queries, keys, lse, 0.125)
    beside, _ = column_sums(queries, keys, lse, 0.125, squares=True)
    assert alone.equal(beside)
    assert alone.equal(column_sums(queries, keys, lse, 0.125)[0])


def test_keys_that_a_query_may_not_see_do_no_harm() -> None:
    queries, keys = _states(1, 1, 100, 64, torch.float32)
    queries, keys = queries.clone(), keys.clone()
    keys[:, 50:] *= 1000  # exp of their logits is infinite for the queries before them
    queries[:, 50:] = 0  # and 1 for those that may see them
    sums, _ = column_sums(queries, keys, causal_log_sum_exp(queries, keys, 0.125), 0.125)
    assert_close(sums.cpu(), attention(queries.cpu(), keys.cpu()).sum(1), relative=sum_error(queries, keys))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_best_match_equals_torch(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    _, keys = _states(*shape, dtype)
    heads, length, _ = keys.shape
    for n_kept in (1, length // 3, length):
        generator = torch.Generator().manual_seed(n_kept)
        kept = torch.stack([torch.randperm(length, generator=generator)[:n_kept].sort().values for _ in range(heads)])
        expected = match_evicted(keys, kept.to(DEVICE))
        target, similarity = best_match(keys, expected.evicted, kept.to(DEVICE))
        assert_close(similarity, expected.similarity, absolute=2 * gamma(cosine_roundings(shape[3])))
        assert target.equal(expected.target)


def test_of_equally_similar_tokens_the_earliest_is_chosen_and_a_zero_key_does_no_harm() -> None:
    keys = torch.ones(1, 200, 16, device=DEVICE)
    keys[0, 7] = 0
    kept = torch.arange(1, 150, device=DEVICE).unsqueeze(0)
    evicted = torch.tensor([[0, 150, 199]], device=DEVICE)
    assert best_match(keys, evicted, kept)[0].tolist() == [[0, 0, 0]]
    assert best_match(keys, torch.tensor([[7]], device=DEVICE), kept)[1].tolist() == [[0.0]]
