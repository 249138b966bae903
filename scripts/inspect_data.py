"""Looks through a benchmark's folder: `python -m scripts.inspect_data [--root FOLDER] [--model llava7b]`.

Exit status: 0 nothing found, 2 wrong input, 3 something found (as run.py has it: done, but not all is well).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.guard import guarded, positive
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.benchmark import Benchmark
    from benchmarks.milebench.inspection import Inspected
    from benchmarks.milebench.lengths import Measure
    from benchmarks.tables.table import Table

FOUND = 3
SHOWN = 20
"""So many findings are printed."""


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from benchmarks.files import write_json, writing
    from benchmarks.milebench.inspection import KINDS

    options = _parser().parse_args(arguments)
    for kind in options.ignore:
        if kind not in KINDS:
            raise LookmError(f"--ignore {kind} is unknown; the kinds are {', '.join(KINDS)}")
    benchmark, measure, inspected = inspect_benchmark(options)
    ignored = set(options.ignore)
    if options.json is not None:
        with writing(options.json, "--json"):
            write_json(options.json, as_json(benchmark, measure, inspected))
    print("\n".join(report(benchmark, measure, inspected, ignored)))
    return FOUND if any(finding.kind not in ignored for entry in inspected for finding in entry.findings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lookm inspect",
        description="Look through a benchmark's folder for what would spoil answers or scores, and sum it up.",
        epilog="Exit status: 0 nothing found, 2 wrong input, 3 something found.",
    )
    parser.add_argument("--benchmark", choices=("milebench", "mini"), default="milebench", help="which one (milebench)")
    parser.add_argument("--root", type=Path, help="its folder (data/MileBench, data/mini)")
    parser.add_argument("--adversarial", action="store_true", help="the -adv samples")
    parser.add_argument("--combined", action="store_true", help="the combined images")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--task", help="only those of a task or group, such as T-1 or NH")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N samples of each dataset")
    parser.add_argument("--model", help="count tokens for this file of configs/model, and what its limit cuts off")
    parser.add_argument("--tokenizer", metavar="MODEL_OR_FOLDER", help="whose tokenizer stands in for the model's own")
    parser.add_argument("--processes", type=positive, default=1, metavar="N", help="read pictures N at a time (1)")
    parser.add_argument("--ignore", nargs="+", default=[], metavar="KIND", help="kinds that are not to be mentioned")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, every finding included")
    return parser


def inspect_benchmark(options: argparse.Namespace) -> tuple[Benchmark, Measure | None, list[Inspected]]:
    """Inspects what the options select.

    Raises:
        LookmError: no such data, dataset, model or tokenizer.
    """
    from benchmarks.evaluation.settings import select_datasets
    from benchmarks.milebench import milebench_benchmark
    from benchmarks.milebench.inspection import inspect_dataset
    from benchmarks.milebench.lengths import read_measure
    from benchmarks.mini.benchmark import mini_benchmark

    if options.benchmark == "mini":
        if options.adversarial or options.combined:
            raise LookmError("MileBench-mini has neither -adv samples nor combined images; leave the option out")
        benchmark = mini_benchmark(options.root or Path("data/mini"))
    else:
        benchmark = milebench_benchmark(
            options.root or Path("data/MileBench"),
            adversarial=options.adversarial,
            combine_image=1 if options.combined else None,
        )
    datasets = select_datasets(benchmark, options.datasets, options.task)
    if options.model is None and options.tokenizer:
        raise LookmError("--tokenizer stands in for a --model's; name that")
    benchmark.prepare()
    measure = None
    if options.model is not None:
        measure = read_measure(options.model, tokenizer=options.tokenizer)
    inspected = [
        inspect_dataset(benchmark, info, limit=options.limit, measure=measure, readers=options.processes)
        for info in datasets
    ]
    return benchmark, measure, inspected


def report(
    benchmark: Benchmark, measure: Measure | None, inspected: Sequence[Inspected], ignored: set[str]
) -> list[str]:
    """Lines of what is printed: one row per dataset, the kinds of findings, and the first of them."""
    from benchmarks.milebench.inspection import KINDS
    from benchmarks.tables.table import as_text

    lines = [f"{benchmark.label} in {benchmark.root}"]
    if measure is not None:
        whose = (
            "" if measure.tokenizer_of == measure.model else f", counted with the tokenizer of {measure.tokenizer_of}"
        )
        limits = f"{measure.n_tokens_per_image} per image, at most {measure.max_context_len}"
        lines[0] += f" · tokens for {measure.model}: {limits}{whose}"
    lines += ["", as_text(_table(measure is not None, inspected, ignored))]
    findings = [finding for entry in inspected for finding in entry.findings if finding.kind not in ignored]
    if not findings:
        return [*lines, "", "nothing found"]
    lines += ["", "found"]
    counts = Counter(finding.kind for finding in findings)
    width = max(map(len, counts))
    lines += [f"  {kind:<{width}}  {counts[kind]:>5}  {KINDS[kind]}" for kind in KINDS if counts[kind]]
    lines.append("")
    for finding in findings[:SHOWN]:
        where = finding.dataset + (f", sample {finding.sample_id}" if finding.sample_id is not None else "")
        lines.append(f"{where}: {finding.kind}: {finding.detail}")
    if len(findings) > SHOWN:
        lines.append(f"… and {len(findings) - SHOWN} more (--json FILE has all)")
    return lines


def _table(with_lengths: bool, inspected: Sequence[Inspected], ignored: set[str]) -> Table:
    """A row for each dataset, and one for all."""
    from benchmarks.tables.table import Row, Table

    def row(name: str, task: str, entries: Sequence[Inspected], per_sample: str, mean: str) -> tuple[str, ...]:
        found = sum(finding.kind not in ignored for entry in entries for finding in entry.findings)
        lengths = [entry.lengths for entry in entries if entry.lengths is not None]
        cells = [name, task, *(str(sum(getattr(entry, n) for entry in entries)) for n in ("samples", "images"))]
        cells += [per_sample, str(found)]
        if with_lengths and lengths:
            cells += [mean, str(max(of.most for of in lengths))]
            cells += [str(sum(getattr(of, n) for of in lengths)) for n in ("cut", "images_lost")]
            cells.append(str(sum(of.groups["text only"] for of in lengths)))
        return (*cells, *["–"] * (len(head) - len(cells)))

    head: tuple[str, ...] = ("dataset", "task", "samples", "images", "per sample", "found")
    head += ("tokens, mean", "most", "cut", "images lost", "text only") if with_lengths else ()
    rows = []
    for entry in inspected:
        per_sample = f"{entry.fewest_images}–{entry.most_images}" if entry.samples else "–"
        mean = f"{entry.lengths.mean:.0f}" if entry.lengths else "–"
        rows.append(Row(row(entry.info.dataset, entry.info.task, [entry], per_sample, mean)))
    return Table("", head, (*rows, Row(row("all", "", inspected, "", ""), "foot")), text_columns=2)


def as_json(benchmark: Benchmark, measure: Measure | None, inspected: Sequence[Inspected]) -> dict[str, Any]:
    """Everything that was found, for programs; nothing is ignored here."""
    fields = ("model", "tokenizer_of", "n_tokens_per_image", "max_context_len")
    return {
        "benchmark": benchmark.label,
        "root": str(benchmark.root),
        "measure": None if measure is None else {field: getattr(measure, field) for field in fields},
        "datasets": [
            {"dataset": entry.info.dataset, "task": entry.info.task, "found": entry.counts}
            | {key: value for key, value in asdict(entry).items() if key not in ("info", "findings")}
            for entry in inspected
        ],
        "findings": [asdict(finding) for entry in inspected for finding in entry.findings],
    }


if __name__ == "__main__":
    sys.exit(main())
