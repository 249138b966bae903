"""Writes the tasks' YAMLs: one for each dataset, and groups for MileBench's tasks, kinds and all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.benchmark import Benchmark, DatasetInfo
from benchmarks.files import write_text
from benchmarks.milebench.dataset import read_dataset
from benchmarks.milebench.scoring import PROTOCOLS, answer_fault

FUNCTIONS = "benchmarks.lmms_eval.tasks"
PREFIXES = {"milebench": "milebench", "mini": "milebench_mini"}
"""What lmms-eval's names of a benchmark's tasks and groups begin with."""
COMMON = "_common_yaml"
"""The file that all tasks include; lmms-eval takes only names that end in .yaml for tasks."""


def write_tasks(benchmark: Benchmark, folder: Path) -> tuple[list[str], int]:
    """Write the tasks of the datasets that are there.

    Args:
        benchmark: its data lie in its root, whose absolute path is written.
        folder: what `--include_path` will name; files of the same names are replaced.

    Returns:
        Names of tasks and groups, and how many samples were left out, which no answer can be scored of.

    Raises:
        LookmError: no data, or an annotation that is none.
    """
    benchmark.prepare()
    infos = [info for info in benchmark.datasets if info not in benchmark.missing]
    write_text(folder / COMMON, _common())
    left_out = 0
    for info in infos:
        left_out += _write_samples(benchmark, info, folder)
        lines = [f"include: {COMMON}", f"task: {task_name(benchmark, info)}"]
        lines += ["dataset_kwargs:", "  data_files:", f"    test: {info.dataset}.jsonl"]
        write_text(folder / f"{task_name(benchmark, info)}.yaml", _text(lines))
    groups = _groups(benchmark, infos)
    for name, (members, sizes) in groups.items():
        write_text(folder / f"{name}.yaml", _group(name, members, sizes))
    return [*(task_name(benchmark, info) for info in infos), *groups], left_out


def task_name(benchmark: Benchmark, info: DatasetInfo) -> str:
    """What lmms-eval calls a dataset, such as `milebench_WebQA`."""
    return f"{PREFIXES[benchmark.name]}_{info.dataset}"


def _common() -> str:
    functions = ("doc_to_messages", "doc_to_visual", "doc_to_text", "process_results")
    lines = ["dataset_path: json", "test_split: test", "output_type: generate_until", "doc_to_target: response"]
    lines += [f"{name}: !function {FUNCTIONS}.{name}" for name in functions]
    lines += ["generation_kwargs:", "  until: []", "  do_sample: false", "  min_new_tokens: 1"]
    lines += ["metric_list:"]
    for protocol in PROTOCOLS:
        lines += [f"  - metric: {protocol}", f"    aggregation: !function {FUNCTIONS}.mean"]
        lines += ["    higher_is_better: true"]
    return _text([*lines, f"score_key: {PROTOCOLS[0]}", "metadata:", "  version: 1"])


def _write_samples(benchmark: Benchmark, info: DatasetInfo, folder: Path) -> int:
    """One line a sample, in the annotation's order; returns how many were left out."""
    dataset = read_dataset(benchmark, info, None)
    root = str(benchmark.root.resolve())
    rows = [
        {
            "root": root,
            "dataset": info.dataset,
            "task": info.task,
            "sample_id": name,
            "response": str(sample["response"]),
        }
        for name, sample in dataset.samples.items()
        if answer_fault(info.dataset, dataset.annotation, sample) is None
    ]
    write_text(folder / f"{info.dataset}.jsonl", _text(json.dumps(row, ensure_ascii=False) for row in rows))
    return len(dataset.samples) - len(rows)


def _groups(benchmark: Benchmark, infos: Sequence[DatasetInfo]) -> dict[str, tuple[list[str], list[int]]]:
    """Group → its members (the benchmark's: kinds; a kind's: task codes; a code's: datasets), and how many datasets
    each task code in it has, since these count alike."""
    prefix = PREFIXES[benchmark.name]
    datasets: dict[str, list[str]] = {}
    for info in infos:
        datasets.setdefault(info.task, []).append(task_name(benchmark, info))
    kinds: dict[str, list[str]] = {}
    for code in datasets:
        kinds.setdefault(code[0], []).append(code)
    groups = {f"{prefix}_{code}": (names, [len(names)]) for code, names in datasets.items()}
    for kind, codes in kinds.items():
        groups[f"{prefix}_{kind}"] = ([f"{prefix}_{code}" for code in codes], [len(datasets[code]) for code in codes])
    ordered = [code for codes in kinds.values() for code in codes]
    groups[prefix] = ([f"{prefix}_{kind}" for kind in kinds], [len(datasets[code]) for code in ordered])
    return groups


def _group(name: str, members: Sequence[str], sizes: Sequence[int]) -> str:
    lines = [f"group: {name}", "task:", *(f"  - {member}" for member in members), "aggregate_metric_list:"]
    for protocol in PROTOCOLS:
        lines += [
            f"  - metric: {protocol}",
            f"    aggregation: !function {FUNCTIONS}.mean_of_{'_'.join(map(str, sizes))}",
        ]
    return _text([*lines, "metadata:", "  version: 1"])


def _text(lines: Iterable[str]) -> str:
    return "\n".join([*lines, ""])
