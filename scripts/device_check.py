"""Check the engine on this machine's device against the CPU, and measure its prefill, into one JSON.

    python -m scripts.device_check --device cuda --shape llava7b

Every strategy in both semantics and every precision compresses the same random layers on the device and on the CPU
(there in float32, from the same numbers); a small random model must generate the plain cache's tokens at a full budget,
and each row of a left-padded batch the tokens of the row alone; the kernels' log-sum-exp, fused statistics and matches
are compared with plain torch, and two runs with each other, bit by bit; one layer's compression is timed by stage; and
one prefill is timed and its peak memory read, plain and compressed. Exits with status 1 if a check fails. Needs torch,
transformers and PyYAML only, and Triton for its kernels.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.evaluation.files import write_json
from benchmarks.evaluation.provenance import hardware, versions
from lookm import load_strategy, look_once, strategy_names
from lookm.compression import compress_many
from lookm.layer import Layer
from lookm.stopwatch import Mark

from .kernel_check import check_determinism, check_kernels, measure_layer

SHAPES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8},
    "llava7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 4e-3}
MEASURED = ("plain", "full", "h2o", "snapkv", "roco", "p_merge", "tp_pmerge")
IMAGE = 999
"""The image token's id in measured prompts."""


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


def measure_prefill(device: str, shape: str, length: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of one prefill (median, all runs) and, on a GPU, its peak memory above the weights, in MiB."""
    torch.manual_seed(0)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    config = LlamaConfig(vocab_size=1000, max_position_embeddings=length, **SHAPES[shape])  # type: ignore[arg-type]
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=dtype).eval()
    model.config.image_token_id = IMAGE
    ids = torch.randint(3, IMAGE, (1, length), device=device)
    ids[:, torch.arange(length, device=device) % 640 >= 64] = IMAGE  # 576 tokens an image, 64 of text before each
    results: dict[str, Any] = {}
    for name in MEASURED:
        times, peak = [], None
        for run in range(repeats + 1):
            if device != "cpu":
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            begin = Mark.now(ids.device)
            with torch.no_grad():
                if name == "plain":
                    model(input_ids=ids, logits_to_keep=1)
                else:
                    with look_once(model, name):
                        model(input_ids=ids, logits_to_keep=1)
            elapsed = begin.milliseconds_until(Mark.now(ids.device))
            if run:  # the first is a warm-up
                times.append(elapsed)
            if device != "cpu":
                peak = round((torch.cuda.max_memory_allocated() - held) / 2**20, 1)
        results[name] = {"median_ms": statistics.median(times), "runs_ms": times, "peak_mib": peak}
    for row in results.values():
        row["times_plain"] = row["median_ms"] / results["plain"]["median_ms"]
    return {"shape": shape, "length": length, "dtype": str(dtype).removeprefix("torch."), "prefill": results}


def main(argv: list[str] | None = None) -> int:
    """Check, measure, print a summary, save; 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small", help="decoder whose prefill is measured")
    parser.add_argument("--length", type=int, default=4096, help="prompt tokens of the measured prefill")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("results/efficiency/device_check.json"))
    arguments = parser.parse_args(argv)
    layers = [row for dtype in TOLERANCE for row in check_layers(arguments.device, dtype, 1200)]
    generation = [row for dtype in (torch.float32, torch.bfloat16) for row in check_generation(arguments.device, dtype)]
    kernels = [row for dtype in TOLERANCE for row in check_kernels(arguments.device, dtype, 1200)]
    repeated = [row for dtype in TOLERANCE for row in check_determinism(arguments.device, dtype, 1200)]
    heads = SHAPES[arguments.shape]["num_attention_heads"]
    size = SHAPES[arguments.shape]["hidden_size"] // heads
    layer = measure_layer(arguments.device, heads, size, arguments.length, arguments.repeats)
    measured = measure_prefill(arguments.device, arguments.shape, arguments.length, arguments.repeats)
    result = {
        "command": " ".join(["python -m scripts.device_check", *(sys.argv[1:] if argv is None else argv)]),
        "hardware": hardware(arguments.device),
        "versions": versions(),
        "layers": layers,
        "generation": generation,
        "kernels": kernels,
        "determinism": repeated,
        "layer": layer,
        "measured": measured,
    }
    write_json(arguments.output, result)
    checks = [*layers, *generation, *kernels, *repeated]
    failed = [row for row in checks if not row["passed"]]
    print(f"{len(checks)} checks, {len(failed)} failed")
    for row in failed:
        print("failed:", json.dumps(row))
    print(f"one layer: attention {layer['attention_ms']:.2f} ms")
    for name in ("tp_pmerge", "eleven"):
        print(
            f"{name:<10}" + ", ".join(f"{stage.removesuffix('_ms')} {ms:.2f} ms" for stage, ms in layer[name].items())
        )
    for name, row in measured["prefill"].items():
        print(f"{name:<10}{row['median_ms']:>10.1f} ms{row['times_plain']:>8.2f} × plain")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
