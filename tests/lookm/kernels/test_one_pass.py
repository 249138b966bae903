"""Claims about attention and its statistics in one pass."""

from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lookm import look_once
from lookm.kernels.one_pass import attention_with_statistics
from lookm.statistics import Needs
from tests.lookm.layers import Layer, layers, random_layer
from tests.lookm.models import built, left_padded, prompt
from tests.lookm.oracle import attention
from tests.lookm.rounding import assert_close, gamma, pass_error, sum_error, weight_error


@given(layers(), st.integers(1, 50) | st.none(), st.integers(1, 60))
def test_output_and_statistics_equal_the_full_matrix(layer: Layer, rows: int | None, window: int) -> None:
    needs = Needs(sums=True, squares=True, windows=frozenset({window}))
    output, statistics = attention_with_statistics(layer.queries, layer.keys, layer.values, needs, None, rows=rows)
    weights = attention(layer.queries, layer.keys)
    values = layer.values.repeat_interleave(layer.queries.shape[0] // layer.values.shape[0], 0).double()
    error = weight_error(layer.queries, layer.keys) + gamma(layer.keys.shape[1] + 1)
    assert_close(output, (weights @ values).transpose(0, 1), absolute=error * (weights @ values.abs()).transpose(0, 1))
    assert statistics.sums is not None
    assert statistics.squares is not None
    error = sum_error(layer.queries, layer.keys)
    assert_close(statistics.sums, weights.sum(1), relative=error)
    assert_close(statistics.squares, weights.square().sum(1), relative=sum_error(layer.queries, layer.keys, power=2))
    assert_close(statistics.windows[window], weights[:, -window:].sum(1), relative=error)


@given(layers(), st.integers(1, 60))
def test_what_is_needed_changes_no_bit_of_anything_else(layer: Layer, window: int) -> None:
    joined = Needs(sums=True, squares=True, windows=frozenset({window, 5}))
    states = layer.queries, layer.keys, layer.values
    output, beside = attention_with_statistics(*states, joined, None)
    for needs in (Needs(sums=True), Needs(windows=frozenset({window}))):
        own_output, alone = attention_with_statistics(*states, needs, None)
        assert own_output.equal(output)
        assert alone.sums is None or (beside.sums is not None and alone.sums.equal(beside.sums))
        assert all(sums.equal(beside.windows[w]) for w, sums in alone.windows.items())


def test_a_prompt_longer_than_a_block_equals_sdpa_with_values_of_another_size() -> None:
    layer = random_layer(900, kv_heads=2, groups=2, size=16)
    values = torch.randn(2, 900, 24)
    output, statistics = attention_with_statistics(layer.queries, layer.keys, values, Needs(sums=True), 0.4)
    expected = F.scaled_dot_product_attention(
        layer.queries[None], layer.keys[None], values[None], is_causal=True, scale=0.4, enable_gqa=True
    )
    error = weight_error(layer.queries, layer.keys, 0.4) + gamma(901)
    assert_close(output, expected[0].transpose(0, 1), absolute=2 * error * float(values.abs().max()))
    assert statistics.sums is not None
    ones = statistics.sums.double().sum(1)
    assert_close(ones, torch.full((4,), 900.0), relative=sum_error(layer.queries, layer.keys, 0.4))


@pytest.mark.parametrize("name", ["llama", "grouped", "qwen2_5_vl"])
def test_rows_of_a_padded_batch_are_attended_as_alone(name: str) -> None:
    model = built(name)
    rows = [prompt(name, texts) for texts in ((12, 9, 14), (5, 9, 8))]
    with torch.no_grad():
        expected = model(**left_padded(rows)).logits[:, -1]
        with look_once(model, "h2o") as session:
            logits = model(**left_padded(rows)).logits[:, -1]
    error = 2 * pass_error(model, max(row["input_ids"].shape[1] for row in rows))
    assert_close(logits, expected, absolute=error * expected.abs().max())
    assert all(budget < 0.21 for budget in session.report().realised_budget)


def test_only_strategies_that_read_statistics_pay_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    unpaid = Mock(side_effect=AssertionError("statistics that nobody reads"))
    monkeypatch.setattr("lookm.kernels.one_pass.attention_with_statistics", unpaid)
    monkeypatch.setattr("lookm.layer.attention_statistics", unpaid)
    model, inputs = built("llama"), prompt("llama")
    with torch.no_grad():
        for free in (look_once(model, "full"), look_once(model, "h2o", alpha1=1.0, alpha2=0.0)):
            with free:
                model(**inputs)
        with look_once(model, "h2o"), pytest.raises(AssertionError, match="nobody reads"):
            model(**inputs)
