"""Claims about attention with its log-sum-exp."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lookm import Strategy
from lookm.compression import CompressedRow, compress_many
from lookm.kernels import prefill
from lookm.kernels.prefill import attention_with_log_sum_exp
from lookm.layer import Layer
from lookm.statistics import causal_log_sum_exp
from tests.lookm.models import built, left_padded, prompt
from tests.lookm.rounding import assert_close, gamma, log_sum_exp_error, weight_error


@given(
    st.integers(1, 70),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from([1, 8, 64, 80]),
    st.sampled_from([None, 0.3]),
)
def test_the_output_is_sdpas_and_the_log_sum_exp_that_of_the_logits(
    length: int, kv_heads: int, group: int, size: int, scaling: float | None
) -> None:
    generator = torch.Generator().manual_seed(length)
    query = torch.randn(2, kv_heads * group, length, size, generator=generator)
    key, value = torch.randn(2, 2, kv_heads, length, size, generator=generator)
    told = attention_with_log_sum_exp(query, key, value, scaling)
    assert told is not None
    output, log_sum_exp = told
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    for row in range(2):
        error = weight_error(query[row], key[row], scaling) + gamma(length + 1)
        assert_close(output[row], expected[row], absolute=2 * error * float(value[row].abs().max()))
        own = causal_log_sum_exp(query[row], key[row], scaling or size**-0.5)
        assert_close(log_sum_exp[row], own, absolute=2 * log_sum_exp_error(query[row], key[row], scaling))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tells_a_float32_log_sum_exp(dtype: torch.dtype) -> None:
    query, key, value = torch.randn(3, 1, 4, 600, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    told = attention_with_log_sum_exp(query, key, value, None)
    assert told is not None
    assert told[1].dtype == torch.float32
    own = causal_log_sum_exp(query[0], key[0], 64**-0.5)
    assert_close(told[1][0], own, absolute=2 * log_sum_exp_error(query[0], key[0]))


def test_values_of_another_size_are_left_to_sdpa() -> None:
    query, key = torch.randn(2, 1, 2, 10, 8)
    assert attention_with_log_sum_exp(query, key, torch.randn(1, 2, 10, 4), None) is None


def test_an_operation_that_is_missing_or_refuses_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise AttributeError("'_OpNamespace' 'aten' object has no attribute '…'")

    def refusing(*_: object) -> None:
        raise RuntimeError("head size not supported")

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    states = torch.randn(3, 1, 2, 10, 8)
    monkeypatch.setattr(prefill, "_kernels", lambda *_: [missing, refusing, prefill._cpu])
    assert attention_with_log_sum_exp(*states, None) is not None
    monkeypatch.setattr(prefill, "_kernels", lambda *_: [missing, refusing])
    assert attention_with_log_sum_exp(*states, None) is None
    monkeypatch.setattr(prefill, "_kernels", lambda *_: [exhausted, prefill._cpu])
    with pytest.raises(torch.OutOfMemoryError):
        attention_with_log_sum_exp(*states, None)


@pytest.mark.parametrize("name", ["llama", "grouped", "qwen2_5_vl"])
def test_every_row_of_a_padded_batch_is_compressed_with_its_own_log_sum_exp(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lookm import look_once

    checks = []

    def checked(strategies: Sequence[Strategy], layer: Layer) -> list[CompressedRow]:
        assert layer.log_sum_exp is not None
        assert layer.scaling is not None
        own = causal_log_sum_exp(layer.queries, layer.keys, layer.scaling)
        error = log_sum_exp_error(layer.queries, layer.keys, layer.scaling)
        assert_close(layer.log_sum_exp, own, absolute=2 * error)
        checks.append(own.shape)
        return compress_many(strategies, layer)

    monkeypatch.setattr("lookm.compressed_layer.compress_many", checked)
    monkeypatch.setattr("lookm.kernels.one_pass.serves", lambda _: False)
    model = built(name)
    inputs = left_padded([prompt(name, texts) for texts in ((12, 9, 14), (5, 9, 8), (12, 9, 14))])
    with torch.no_grad(), look_once(model, "h2o"):
        model(**inputs)
    assert len(checks) == 9


def test_the_three_ways_to_the_statistics_give_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    from lookm import look_once

    model, inputs = built("grouped"), prompt("grouped")

    def tokens() -> list[list[int]]:
        with look_once(model, "roco"):
            output = model.generate(**inputs, max_new_tokens=8, do_sample=False)  # type: ignore[operator]
        return output.tolist()

    beside = tokens()
    monkeypatch.setattr("lookm.kernels.one_pass.serves", lambda _: False)
    told = tokens()
    monkeypatch.setattr("lookm.attention.attention_with_log_sum_exp", lambda *_: None)
    assert tokens() == told == beside
