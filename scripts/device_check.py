"""Check the engine on this machine's device against the CPU.

    python -m scripts.device_check --device cuda --shape llava7b

Every strategy in both semantics and every precision compresses the same random layers on the device and on the CPU
(there in float32, from the same numbers); a small random model must generate the plain cache's tokens at a full budget,
and each row of a left-padded batch the tokens of the row alone; the kernels' log-sum-exp, fused statistics and matches
are compared with plain torch, and two runs with each other, bit by bit. Exits with status 1 if a check fails. Times and
memory are measured by `scripts.efficiency`. Needs torch, transformers and PyYAML only, and Triton for its kernels.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.evaluation.provenance import hardware, versions
from benchmarks.files import write_json
from benchmarks.guard import guarded
from lookm import load_strategy, look_once, strategy_names
from lookm.compression import compress_many
from lookm.layer import Layer

from .kernel_check import HEADS, check_determinism, check_kernels

SHAPES = {"llava7b": (32, 1, 128), "qwen2_5vl7b": (4, 7, 128)}
"""Key/value heads, query heads of each, head size."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 4e-3}


def random_layer(length: int, dtype: torch.dtype, seed: int) -> Layer:
    """Queries (8, L, 80), keys and values (4, L, 80) and is_image (L,): three images in text, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(8, length, 80, generator=generator).to(dtype)
    keys, values = torch.randn(2, 4, length, 80, generator=generator).to(dtype)
    return Layer(queries, keys, values, (torch.arange(length) % (length // 3)) >= length // 12)


def moved(layer: Layer, target: str | torch.dtype) -> Layer:
    """A layer's states on another device or in another dtype."""
    states = (layer.queries.to(target), layer.keys.to(target), layer.values.to(target))
    return Layer(*states, layer.is_image.to(states[0].device))


def check_layers(device: str, dtype: torch.dtype, length: int) -> list[dict[str, Any]]:
    """Every strategy on one random layer: share of positions kept on the CPU too, largest difference of values."""
    rows = []
    for seed, name in enumerate(strategy_names()):
        for semantics in ("paper", "release"):
            strategy = load_strategy(name, semantics=semantics)
            layer = random_layer(length, dtype, seed)
            (there,) = compress_many([strategy], moved(layer, device))
            (here,) = compress_many([strategy], moved(layer, torch.float32))
            same = [
                len(set(a) & set(b)) / len(b)
                for a, b in zip(there.positions.tolist(), here.positions.tolist(), strict=True)
            ]
            equal = min(same) == 1
            difference = float((there.values.float().cpu() - here.values).abs().max()) if equal else None
            passed = min(same) >= 0.995 and (difference is None or difference <= TOLERANCE[dtype])
            rows.append(
                {"strategy": name, "semantics": semantics, "dtype": str(dtype).removeprefix("torch."),
                 "same_positions": min(same), "largest_difference": difference, "passed": passed}
            )  # fmt: skip
    return rows


def check_generation(device: str, dtype: torch.dtype) -> list[dict[str, Any]]:
    """Full budget against the plain cache, and rows of a left-padded batch against the rows alone."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().to(device=device, dtype=dtype)
    short, long = torch.randint(2, 500, (1, 70), device=device), torch.randint(2, 500, (1, 120), device=device)
    batch = torch.cat([torch.nn.functional.pad(short, (50, 0)), long])
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
    for name in strategy_names():
        with look_once(model, name, alpha1=1.0, alpha2=0.0):
            full = tokens(long, torch.ones_like(long)).equal(plain)
        with look_once(model, name):
            together = tokens(batch, mask)
            alone = torch.cat([tokens(ids, torch.ones_like(ids)) for ids in (short, long)])
        same = float((together == alone).float().mean())
        passed = full and (same == 1 or dtype != torch.float32)  # in half precision a batch rounds differently
        rows.append(
            {"strategy": name, "dtype": str(dtype).removeprefix("torch."), "full_budget_equal": full,
             "batch_tokens_equal": same, "passed": passed}
        )  # fmt: skip
    return rows


@guarded
def main(argv: list[str] | None = None) -> int:
    """Check, print a summary, save it if a file is named; 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="check the kernels with this model's heads, too")
    parser.add_argument("--length", type=int, default=1200, help="tokens of the layers that are checked (1200)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all numbers as JSON")
    arguments = parser.parse_args(argv)
    device, length = arguments.device, arguments.length
    heads = HEADS if arguments.shape is None else (*HEADS, SHAPES[arguments.shape])
    checks = {
        "layers": [row for dtype in TOLERANCE for row in check_layers(device, dtype, length)],
        "generation": [row for dtype in TOLERANCE for row in check_generation(device, dtype)],
        "kernels": [row for dtype in TOLERANCE for row in check_kernels(device, dtype, length, heads)],
        "determinism": [row for dtype in TOLERANCE for row in check_determinism(device, dtype, length)],
    }
    if arguments.output is not None:
        command = " ".join(["python -m scripts.device_check", *(sys.argv[1:] if argv is None else argv)])
        about = {"command": command, "hardware": hardware(device), "versions": versions()}
        write_json(arguments.output, about | checks)
    failed = {name: [row for row in rows if not row["passed"]] for name, rows in checks.items()}
    for name, rows in checks.items():
        print(f"{name:<12}{len(rows)} checks, {len(failed[name])} failed")
        for row in failed[name]:
            print("  failed:", json.dumps(row))
    return 1 if any(failed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
