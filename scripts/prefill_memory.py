"""Peak memory of one prefill: plain SDPA, LOOK-M's scores beside SDPA, and eager attention with an L × L matrix.

    python -m scripts.prefill_memory --length 8192

Every variant runs in a process of its own on a randomly initialised Llama-shaped decoder (shapes decide memory, not
weights) and reports the peak above what it held before the prefill: resident memory on the CPU, allocated memory on a
GPU. Results go to `results/efficiency/prefill_memory.json`.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

from benchmarks.evaluation.provenance import hardware, versions
from benchmarks.files import write_json
from lookm import look_once

VARIANTS = ("plain", "h2o", "tp_pmerge", "eager")
IMAGE = 999
"""The image token's id."""

OUTPUT = Path("results/efficiency/prefill_memory.json")


def eager_scores(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
    """Eager attention that sums its whole matrix over the queries, as the release does."""
    output, weights = eager_attention_forward(module, query, key, value, mask, **kwargs)
    module.column_sums = weights.sum(-2)
    return output, None


def build(arguments: argparse.Namespace) -> LlamaForCausalLM:
    """The random decoder."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=arguments.width,
        intermediate_size=int(2.6875 * arguments.width),
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads,
        max_position_embeddings=arguments.length,
    )
    dtype = torch.float32 if arguments.device == "cpu" else torch.bfloat16
    return LlamaForCausalLM(config).eval().to(device=arguments.device, dtype=dtype)


def resident_bytes(field: str) -> int:
    """Memory of this process from Linux: now (`VmRSS`) or at its peak since it started (`VmHWM`).

    `getrusage` will not do: its peak begins with that of the process which started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024


def prefill(model: PreTrainedModel, variant: str, ids: Tensor) -> None:
    """One prefill of the variant."""
    with torch.no_grad():
        if variant in ("plain", "eager"):
            model.set_attn_implementation("eager_scores" if variant == "eager" else "sdpa")
            model(input_ids=ids, logits_to_keep=1)
        else:
            with look_once(model, variant):
                model(input_ids=ids, logits_to_keep=1)


def measure(variant: str, arguments: argparse.Namespace) -> int:
    """Peak bytes of one prefill above what was held before it."""
    AttentionInterface.register("eager_scores", eager_scores)
    AttentionMaskInterface.register("eager_scores", eager_mask)
    model = build(arguments)
    model.config.image_token_id = IMAGE
    ids = torch.randint(3, IMAGE, (1, arguments.length), device=arguments.device)
    ids[:, torch.arange(arguments.length) % 640 >= 64] = IMAGE  # 576 tokens an image: the text prior keeps all text
    prefill(model, variant, ids[:, :256])  # warm-up: thread pools and kernels
    if arguments.device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        prefill(model, variant, ids)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    before = resident_bytes("VmRSS")
    prefill(model, variant, ids)
    return resident_bytes("VmHWM") - before


def run_variant(variant: str, argv: list[str]) -> int:
    """Measure in a fresh process."""
    command = [sys.executable, "-m", f"{__package__}.prefill_memory", *argv, "--variant", variant]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"peak memory of a prefill above its start, L = {result['length']:,}, {result['layers']} layers, "
        f"width {result['width']}, {result['heads']} heads, median of {result['repeats']} runs, "
        f"{result['hardware'].get('accelerator', result['hardware']['processor'])}",
        f"{'variant':<12}{'MiB':>10}{'× plain':>10}",
    ]
    lines += [
        f"{name:<12}{row['median_mib']:>10,.0f}{row['times_plain']:>10.2f}" for name, row in result["variants"].items()
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Parse, measure every variant, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=8192, help="prompt tokens")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--variant", choices=VARIANTS, help="measure this one only, in this process, and print bytes")
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(argv)
    if arguments.variant:
        print(measure(arguments.variant, arguments))
        return
    peaks = {name: [run_variant(name, argv) / 2**20 for _ in range(arguments.repeats)] for name in VARIANTS}
    plain = statistics.median(peaks["plain"])
    result = {
        "command": " ".join(["python -m scripts.prefill_memory", *argv]),
        "hardware": hardware(arguments.device),
        "versions": versions(),
        **{name: getattr(arguments, name) for name in ("length", "layers", "width", "heads", "device", "repeats")},
        "variants": {
            name: {
                "median_mib": round(statistics.median(values), 1),
                "times_plain": round(statistics.median(values) / plain, 3),
                "runs_mib": [round(value, 1) for value in values],
            }
            for name, values in peaks.items()
        },
    }
    write_json(arguments.output, result)
    print(table(json.loads(json.dumps(result))))


if __name__ == "__main__":
    main()
