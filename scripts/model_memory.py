"""GPU memory that each backbone needs for one prompt under every strategy, worked out from the configurations.

    python -m scripts.model_memory --length 4096

Nothing is measured and nothing is loaded: see `lookm.models.memory` for what is counted.
`--output results/efficiency/model_memory.json` wrote the numbers that are there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evaluation.provenance import versions
from benchmarks.files import write_json
from benchmarks.guard import guarded
from benchmarks.tables.table import Row, Table, as_text
from lookm.errors import LookmError
from lookm.models.source import QUANTIZATIONS
from lookm.registry import load_strategy, names_of, strategy_names, yaml_of

GIB = 2**30
SHOWN = ("full", "h2o", "tp_pmerge")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and save all numbers if a file is named; returns the exit status: 0, or 2 for wrong input."""
    options = _parser().parse_args(arguments)
    models = options.models or backbone_names()
    numbers = {name: model_numbers(name, options) for name in models}
    print(as_text(table(numbers)))
    if options.output is not None:
        command = f"python -m scripts.model_memory --length {options.length} --alpha1 {options.alpha1:g}"
        about = {
            "command": f"{command} --alpha2 {options.alpha2:g} --dtype {options.dtype}",
            "what": "bytes, computed from the configurations (not measured): one prompt, images of the largest size; "
            "peak = weights + cache + workspace, without the CUDA context and the allocator's waste",
            "versions": versions(),
        }
        write_json(options.output, about | {"models": numbers})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lookm memory", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="*", help="files of configs/model, such as llava7b (all backbones)")
    parser.add_argument("--length", type=int, default=4096, help="prompt tokens, at most the model's context (4096)")
    parser.add_argument("--alpha1", type=float, default=0.1, help="share of the recent window (0.1)")
    parser.add_argument("--alpha2", type=float, default=0.1, help="share of the important tokens (0.1)")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="(bfloat16)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all numbers, of every strategy, as JSON")
    return parser


def backbone_names() -> list[str]:
    """Models with a checkpoint on the Hub: all but the shipped one."""
    return [name for name in names_of("model") if yaml_of("model", name).get("path")]


def model_numbers(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one backbone: weights, and cache, workspace and peak under every strategy, in bytes.

    Raises:
        LookmError: no backbone of that name, or a length or budget that cannot be.
    """
    import torch

    from lookm.models.memory import blueprint, memory_need, prompt_of, weight_bytes

    fields = yaml_of("model", name)
    if not fields.get("path"):
        raise LookmError(f"{name} comes with this repository and needs next to nothing; choose another model")
    if options.length < 1:
        raise LookmError(f"--length must be at least 1, not {options.length}")
    model, image = blueprint(fields)
    dtype = getattr(torch, options.dtype)
    length = min(options.length, fields["max_context_len"])
    needs = {
        strategy: memory_need(
            model, image, load_strategy(strategy, alpha1=options.alpha1, alpha2=options.alpha2), length, dtype
        )
        for strategy in strategy_names()
    }
    return {
        "label": fields["label"],
        "prompt_tokens": length,
        "image_tokens": int(prompt_of(length, image.tokens).sum()),
        "weights": weight_bytes(model, dtype),
        "weights_quantized": {kind: weight_bytes(model, dtype, kind) for kind in QUANTIZATIONS},
        "strategies": {
            strategy: {
                "kept_tokens": need.kept_tokens, "cache": need.cache, "workspace": need.workspace, "peak": need.peak,
            }
            for strategy, need in needs.items()
        },
    }  # fmt: skip


def table(numbers: dict[str, dict[str, Any]]) -> Table:
    """The table in GiB: per backbone weights, and cache and peak for the full cache, without and with merging."""
    head = ["backbone", "tokens", "weights", "8bit", "4bit", *(f"{kind} {s}" for s in SHOWN for kind in ("KV", "peak"))]
    rows = []
    for name, model in numbers.items():
        quantized = [model["weights_quantized"][kind] for kind in QUANTIZATIONS]
        costs = [model["strategies"][strategy][kind] for strategy in SHOWN for kind in ("cache", "peak")]
        sizes = (f"{size / GIB:.2f}" for size in (model["weights"], *quantized, *costs))
        rows.append(Row((name, str(model["prompt_tokens"]), *sizes)))
    title = "GPU memory in GiB, computed from the configurations (not measured): one prompt"
    return Table(title, tuple(head), tuple(rows))


if __name__ == "__main__":
    sys.exit(main())
