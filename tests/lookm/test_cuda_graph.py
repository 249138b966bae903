"""On a GPU: a captured decode step gives the tokens of the step called one by one."""

import pytest
import torch

from lookm import generate_sweep, load_strategy
from tests.lookm.models import left_padded, llama, prompt
from tests.lookm.oracle import ROWS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("ends", [(), tuple(range(40))])
def test_a_captured_step_gives_the_tokens_of_the_step_itself(ends: tuple[int, ...]) -> None:
    model = llama(kv_heads=2).to("cuda")
    rows = [prompt("llama"), prompt("llama", (5, 20, 3, 8), seed=1), prompt("llama", (30,), seed=2)]
    inputs = {name: tensor.to("cuda") for name, tensor in left_padded(rows).items()}
    strategies = [load_strategy(name) for name in sorted(ROWS)]
    called, captured = (
        generate_sweep(
            model, inputs, strategies, max_new_tokens=40, pad_token_id=0, eos_token_ids=ends, cuda_graph=graph
        )
        for graph in (False, True)
    )
    assert [row.tokens for row in captured] == [row.tokens for row in called]
