"""Peak memory of one prefill: plain SDPA, LOOK-M's scores beside SDPA, and eager attention with an L × L matrix.

    python -m scripts.prefill_memory --length 8192

Every variant runs in a process of its own on a randomly initialised Llama-shaped decoder (shapes decide memory, not
weights) and reports the peak above what it held before the prefill: resident memory on the CPU, allocated memory on a
GPU. `--output results/efficiency/prefill_memory.json` wrote the numbers that are there.
"""

import argparse
import statistics
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

from benchmarks.evaluation.provenance import hardware, versions
from benchmarks.files import write_json
from benchmarks.guard import guarded
from lookm import look_once

VARIANTS = ("plain", "h2o", "tp_pmerge", "eager")
IMAGE = 999
"""The image token's id."""
SIZES = {"length": 8192, "layers": 8, "width": 512, "heads": 8, "repeats": 3}


def eager_scores(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
    """Eager attention that sums its whole matrix over the queries, as the release does."""
    output, weights = eager_attention_forward(module, query, key, value, mask, **kwargs)
    module.column_sums = weights.sum(-2)
    return output, None


AttentionInterface.register("eager_scores", eager_scores)
AttentionMaskInterface.register("eager_scores", eager_mask)


def prefill(model: PreTrainedModel, variant: str, ids: Tensor) -> None:
    """One prefill of a variant: "plain", "eager" as the release does it, or a strategy inside `look_once`."""
    if variant == "eager":
        use_attention(model, "eager_scores")
    with torch.inference_mode(), nullcontext() if variant in ("plain", "eager") else look_once(model, variant):
        model(input_ids=ids, use_cache=True, logits_to_keep=1)
    if variant == "eager":
        use_attention(model, "sdpa")


def use_attention(model: PreTrainedModel, name: str) -> None:
    """Sets the attention of the decoder, and leaves a vision tower's alone."""
    model.set_attn_implementation({"text_config": name} if hasattr(model.config, "text_config") else name)


def build(options: argparse.Namespace) -> LlamaForCausalLM:
    """The random decoder."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=options.width,
        intermediate_size=int(2.6875 * options.width),
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        max_position_embeddings=options.length,
    )
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    return LlamaForCausalLM(config).eval().to(device=options.device, dtype=dtype)


def resident_bytes(field: str) -> int:
    """Memory of this process from Linux: now (`VmRSS`) or at its peak since it started (`VmHWM`).

    `getrusage` will not do: its peak begins with that of the process which started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024


def measure(variant: str, options: argparse.Namespace) -> int:
    """Peak bytes of one prefill above what was held before it."""
    model = build(options)
    model.config.image_token_id = IMAGE
    ids = torch.randint(3, IMAGE, (1, options.length), device=options.device)
    ids[:, torch.arange(options.length) % 640 >= 64] = IMAGE  # 576 tokens an image: the text prior keeps all text
    prefill(model, variant, ids[:, :256])  # warm-up: thread pools and kernels
    if options.device == "cpu":
        before = resident_bytes("VmRSS")
        prefill(model, variant, ids)
        return resident_bytes("VmHWM") - before
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    prefill(model, variant, ids)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def run_variant(variant: str, argv: list[str]) -> int:
    """Measure in a fresh process."""
    command = [sys.executable, "-m", __spec__.name, *argv, "--variant", variant]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


@guarded
def main(argv: list[str] | None = None) -> None:
    """Parse, measure every variant, print, and save if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"({default})")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all numbers as JSON")
    parser.add_argument("--variant", choices=VARIANTS, help="measure this one only, in this process, and print bytes")
    argv = sys.argv[1:] if argv is None else argv
    options = parser.parse_args(argv)
    if options.variant:
        print(measure(options.variant, options))
        return
    peaks = {name: [run_variant(name, argv) / 2**20 for _ in range(options.repeats)] for name in VARIANTS}
    medians = {name: statistics.median(values) for name, values in peaks.items()}
    sizes = {name: getattr(options, name) for name in (*SIZES, "device")}
    print("peak memory of a prefill above its start:", ", ".join(f"{name} {size}" for name, size in sizes.items()))
    for name, median in medians.items():
        print(f"{name:<12}{median:>10,.0f} MiB{median / medians['plain']:>10.2f} × plain")
    if options.output is not None:
        variants = {
            name: {
                "median_mib": round(medians[name], 1),
                "times_plain": round(medians[name] / medians["plain"], 3),
                "runs_mib": [round(value, 1) for value in values],
            }
            for name, values in peaks.items()
        }
        command = " ".join(["python -m scripts.prefill_memory", *argv])
        about = {"command": command, "hardware": hardware(options.device), "versions": versions()}
        write_json(options.output, about | sizes | {"variants": variants})


if __name__ == "__main__":
    main()
