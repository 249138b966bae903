"""Memory is known before it is used: estimates against what a sweep holds, groups, free memory."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lookm import load_strategy
from lookm.memory import cache_token_bytes, estimate_bytes, fitting_groups, free_bytes
from lookm.prompt import image_token_ids, read_prompt
from lookm.sweep import generate_sweep
from tests.lookm.models import built, left_padded, prompt


@pytest.mark.parametrize("name", ["llama", "grouped", "llava", "qwen2_5_vl"])
def test_estimates_are_the_bytes_that_rows_then_hold(name: str) -> None:
    model = built(name)
    inputs = left_padded([prompt(name), prompt(name, (5, 20, 3, 8), seed=1)])
    strategies = [load_strategy(row) for row in ("full", "h2o", "tp_pmerge")]
    found = read_prompt(inputs["input_ids"], None, inputs["attention_mask"], image_token_ids(model.config))
    images = [found.row_is_image(row) for row in range(2)]
    estimates = estimate_bytes(model.config, model.dtype, strategies, images, max_new_tokens=5)
    rows = generate_sweep(model, inputs, strategies, max_new_tokens=5, pad_token_id=0)
    token = cache_token_bytes(model.config, model.dtype)
    for estimate, row in zip(estimates, rows, strict=True):
        assert estimate == sum(map(sum, row.report.kept_bytes)) + 2 * 4 * token


def test_a_token_of_llava_7b_takes_half_a_mebibyte() -> None:
    from transformers import LlamaConfig, LlavaConfig

    text = LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32)
    assert cache_token_bytes(LlavaConfig(text_config=text), torch.bfloat16) == 512 * 1024
    grouped = LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8)
    assert cache_token_bytes(grouped, torch.bfloat16) == 128 * 1024


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(0, 20) | st.none())
def test_groups_keep_the_order_and_fit_unless_one_alone_does_not(needed: list[int], limit: int | None) -> None:
    groups = fitting_groups(needed, limit)
    assert [index for group in groups for index in group] == list(range(len(needed)))
    assert all(len(group) == 1 or limit is None or sum(needed[i] for i in group) <= limit for group in groups)
    if limit is not None:  # as few as can be: the next item would not have fitted
        for group, following in pairwise(groups):
            assert sum(needed[i] for i in group) + needed[following[0]] > limit
    else:
        assert len(groups) == (1 if needed else 0)


def test_free_memory_of_this_machine_is_told_or_unknown() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is None or free > 0
    assert free_bytes(torch.device("meta")) is None
