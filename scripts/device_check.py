"""Check the engine on this machine's device against the CPU.

    python -m scripts.device_check --device cuda --shape llava7b

Every strategy in both semantics and every precision compresses the same random layers on the device, twice, and on the
CPU (there in float32, from the same numbers): the same positions and values, and the same bits both times. A small
random model must generate the plain cache's tokens at a full budget, and each row of a left-padded batch the tokens of
the row alone. The kernels' log-sum-exp, fused statistics and matches are compared with plain torch. Exits with status 1
if a check fails. Times and memory are measured by `scripts.efficiency`. Needs torch, transformers and PyYAML only, and
Triton for its kernels.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.evaluation.provenance import hardware, versions
from benchmarks.files import write_json
from benchmarks.guard import guarded
from lookm import load_strategy, look_once
from lookm.compression import compress_many
from lookm.kernels import fused
from lookm.kernels.prefill import attention_with_log_sum_exp
from lookm.layer import Layer
from lookm.merging import match_evicted
from lookm.registry import ready_strategies
from lookm.shortening import ShorteningStrategy
from lookm.statistics import Needs, attention_statistics, causal_log_sum_exp

Row = dict[str, Any]
SHAPES = {"llava7b": (32, 1, 128), "qwen2_5vl7b": (4, 7, 128)}
"""Key/value heads, query heads of each, head size."""
HEADS = [(8, 1, 64), (4, 2, 80), (4, 1, 128), (2, 7, 128)]
IMAGE = 499
"""The image token's id."""
VALUES = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 4e-3}
"""Largest difference of a kept value, by the precision on the device."""
LSE = {torch.float32: 1e-4, torch.bfloat16: 5e-3, torch.float16: 5e-3}
"""Largest difference of a log-sum-exp; the kernels round the probabilities to half precision, not the logits."""
SUMS = {torch.float32: 1e-3, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""Largest difference of a column sum S_j as a share of 1 + S_j."""


def cache_strategies() -> list[str]:
    """Strategies that choose in the cache; those that shorten prompts need models of their own."""
    return [name for name in ready_strategies() if not isinstance(load_strategy(name), ShorteningStrategy)]


def random_layer(heads: tuple[int, int, int], length: int, dtype: torch.dtype) -> Layer:
    """Queries (Hkv · group, L, D), keys and values (Hkv, L, D) on the CPU; three images in text."""
    kv_heads, group, size = heads
    generator = torch.Generator().manual_seed(length + size)
    queries = torch.randn(kv_heads * group, length, size, generator=generator).to(dtype)
    keys, values = torch.randn(2, kv_heads, length, size, generator=generator).to(dtype)
    return Layer(queries, keys, values, (torch.arange(length) % (length // 3)) >= length // 12)


def moved(layer: Layer, target: str | torch.dtype) -> Layer:
    """A layer's states on another device or in another dtype."""
    states = (layer.queries.to(target), layer.keys.to(target), layer.values.to(target))
    return Layer(*states, layer.is_image.to(states[0].device))


def check_layers(device: str, dtype: torch.dtype, length: int) -> list[Row]:
    """Every strategy on one random layer: share of positions kept on the CPU too, difference of values, same bits."""
    layer = random_layer((4, 2, 80), length, dtype)
    strategies = [load_strategy(name, semantics=s) for name in cache_strategies() for s in ("paper", "release")]
    once, again = (compress_many(strategies, moved(layer, device)) for _ in range(2))
    plain = compress_many(strategies, moved(layer, torch.float32))
    rows = []
    for strategy, there, repeated, here in zip(strategies, once, again, plain, strict=True):
        pairs = zip(there.head_positions(), here.head_positions(), strict=True)
        same = min(len(set(a.tolist()) & set(b.tolist())) / max(1, len(b)) for a, b in pairs)
        difference = float((there.values.float().cpu() - here.values).abs().max()) if same == 1 else None
        bits = all(
            getattr(there, name).equal(getattr(repeated, name)) for name in ("keys", "values", "positions")
        )  # fmt: skip
        rows.append(
            {"strategy": strategy.name, "semantics": strategy.semantics, "same_positions": same,
             "largest_difference": difference, "same_bits": bits,
             "passed": bits and same >= 0.995 and (difference is None or difference <= VALUES[dtype])}
        )  # fmt: skip
    return rows


def check_generation(device: str, dtype: torch.dtype, length: int) -> list[Row]:
    """Full budget against the plain cache, and rows of a left-padded batch against the rows alone."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().to(device=device, dtype=dtype)
    model.config.image_token_id = IMAGE
    short, long = torch.randint(2, IMAGE, (1, 70), device=device), torch.randint(2, IMAGE, (1, 120), device=device)
    short[:, 10:50] = long[:, 20:100] = IMAGE  # without images a text prior compresses nothing
    batch = torch.cat([F.pad(short, (50, 0)), long])
    mask = torch.ones_like(batch)
    mask[0, :50] = 0

    def tokens(ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = model.generate(
            input_ids=ids, attention_mask=attention_mask, max_new_tokens=24, min_new_tokens=24, do_sample=False
        )
        assert isinstance(output, Tensor)
        return output[:, ids.shape[1] :]

    rows = []
    plain = tokens(long, torch.ones_like(long))
    for name in cache_strategies():
        whole = load_strategy(name, alpha1=1.0, alpha2=0.0)
        whole = whole if whole.fixed_size else load_strategy("full")  # no budget makes it keep everything
        with look_once(model, whole):
            full = tokens(long, torch.ones_like(long)).equal(plain)
        with look_once(model, name):
            together = tokens(batch, mask)
            alone = torch.cat([tokens(ids, torch.ones_like(ids)) for ids in (short, long)])
        same = float((together == alone).float().mean())
        passed = full and (same == 1 or dtype != torch.float32)  # in half precision a batch rounds differently
        rows.append({"strategy": name, "full_budget_equal": full, "batch_tokens_equal": same, "passed": passed})
    return rows


def check_kernels(device: str, dtype: torch.dtype, length: int) -> list[Row]:
    """Log-sum-exp, sums, squares, a window and matches of random heads, on the device and on the CPU in float32."""
    rows = []
    needs = Needs(sums=True, squares=True, windows=frozenset({32}))
    for heads in HEADS:
        layer = random_layer(heads, length, dtype)
        on, off = moved(layer, device), moved(layer, torch.float32)
        lse = causal_log_sum_exp(off.queries, off.keys, heads[2] ** -0.5)
        output = attention_with_log_sum_exp(on.queries[None], on.keys[None], on.values[None], None)
        row: Row = {"heads": list(heads), "fused": fused("column_sums", on.queries, on.keys) is not None}
        row["log_sum_exp_told"] = output is not None
        if output is not None:
            states = (on.queries[None], on.keys[None], on.values[None])
            expected = F.scaled_dot_product_attention(*states, is_causal=True, enable_gqa=True)
            row["output_difference"] = float((output[0] - expected).abs().max())
            row["lse_difference"] = float((output[1][0].cpu() - lse).abs().max())
        there = attention_statistics(on.queries, on.keys, needs, log_sum_exp=None if output is None else output[1][0])
        here = attention_statistics(off.queries, off.keys, needs, log_sum_exp=lse)
        pairs = [(there.sums, here.sums), (there.squares, here.squares), (there.windows[32], here.windows[32])]
        shares = [((a.cpu() - b).abs() / (1 + b)).max() for a, b in pairs if a is not None and b is not None]
        row["sum_difference"] = float(max(shares))
        kept = torch.arange(0, length, 5).expand(heads[0], -1)
        found, match = match_evicted(on.keys, kept.to(device)), match_evicted(off.keys, kept)
        row["same_matches"] = float((found.target.cpu() == match.target).float().mean())
        row["similarity_difference"] = float((found.similarity.cpu() - match.similarity).abs().max())
        row["passed"] = (
            row.get("lse_difference", 0) <= LSE[dtype]
            and row.get("output_difference", 0) <= LSE[dtype] * 4
            and row["sum_difference"] <= SUMS[dtype]
            and row["same_matches"] >= 0.999
            and row["similarity_difference"] <= 1e-4
        )
        rows.append(row)
    return rows


@guarded
def main(argv: list[str] | None = None) -> int:
    """Check, print a summary, save it if a file is named; 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="check the kernels with this model's heads, too")
    parser.add_argument("--length", type=int, default=1200, help="tokens of the layers that are checked (1200)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all numbers as JSON")
    options = parser.parse_args(argv)
    HEADS.extend(heads for name, heads in SHAPES.items() if name == options.shape and heads not in HEADS)
    checks: dict[str, list[Row]] = {}
    for name, check in (("layers", check_layers), ("generation", check_generation), ("kernels", check_kernels)):
        checks[name] = [
            {"dtype": str(dtype).removeprefix("torch."), **row}
            for dtype in VALUES
            for row in check(options.device, dtype, options.length)
        ]
        failed = [row for row in checks[name] if not row["passed"]]
        print(f"{name:<12}{len(checks[name])} checks, {len(failed)} failed")
        for row in failed:
            print("  failed:", json.dumps(row))
    if options.output is not None:
        command = " ".join(["python -m scripts.device_check", *(sys.argv[1:] if argv is None else argv)])
        about = {"command": command, "hardware": hardware(options.device), "versions": versions()}
        write_json(options.output, about | checks)
    return 0 if all(row["passed"] for rows in checks.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
