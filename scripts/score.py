"""Scores anybody's MileBench results: `python -m scripts.score FOLDER_OR_PRED_JSON --annotations MILEBENCH`.

Takes a run's folder (`<run>/<Dataset>/pred.json`), one dataset's folder, one `pred.json`, or a file that holds
`{"dataset", "annotation", "predictions"}` together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evaluation.cells import task_columns
from benchmarks.files import write_json, writing
from benchmarks.guard import guarded
from benchmarks.milebench.results import Case, collect_cases, write_evaluation
from benchmarks.milebench.scoring import PROTOCOLS, score_predictions
from benchmarks.milebench.taxonomy import DATASETS, PAPER_COLUMNS, TASKS, mean_weights
from benchmarks.tables.table import Row, Table, as_text
from lookm.errors import LookmError


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for wrong input."""
    options = _parser().parse_args(arguments)
    cases = collect_cases(options.results, options.annotations, options.dataset)
    if options.write and any(case.folder is None for case in cases):
        raise LookmError(f"--write needs a pred.json to write beside; {options.results} is not one")
    scored = [score_case(case, options.protocol) for case in cases]
    if options.write:
        for case, entry in zip(cases, scored, strict=True):
            assert case.folder is not None
            official = entry.get("official") or score_predictions(case.dataset, case.annotation, case.predictions)
            write_evaluation(case.folder, official)
    if options.json is not None:
        with writing(options.json, "--json"):
            write_json(options.json, scored)
    print("\n\n".join(map(as_text, tables(scored, options.protocol))))
    for warning in _warnings(scored):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lookm score", description="Score MileBench results.")
    parser.add_argument("results", type=Path, metavar="FOLDER_OR_PRED_JSON", help="a run's folder, or a pred.json")
    parser.add_argument("--annotations", type=Path, metavar="PATH", help="MileBench's folder, or one <Dataset>.json")
    parser.add_argument("--dataset", metavar="NAME", help="score only this one; names a pred.json that lies elsewhere")
    parser.add_argument("--protocol", choices=[*PROTOCOLS, "both"], default="both", help="whose scores (both)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything, every sample's score included")
    parser.add_argument(
        "--write", action="store_true", help="write MileBench's eval.json and eval_score.json beside each pred.json"
    )
    return parser


def score_case(case: Case, protocol: str) -> dict[str, Any]:
    """Score one dataset: `dataset`, `task` (None outside MileBench) and one result per protocol, under its name."""
    task = next((info.task for info in DATASETS if info.dataset == case.dataset), None)
    results = {
        name: score_predictions(case.dataset, case.annotation, case.predictions, protocol=name)
        for name in PROTOCOLS
        if protocol in (name, "both")
    }
    return {"dataset": case.dataset, "task": task, **results}


def tables(scored: Sequence[dict[str, Any]], protocol: str) -> list[Table]:
    """What is printed: a row per dataset, and the means per task where there are several datasets."""
    shown = [name for name in PROTOCOLS if protocol in (name, "both")]
    rows = []
    for entry in scored:
        result = entry[shown[0]]
        rouge, counts = result.get("rouge", {}), result["counts"]
        row = [entry["dataset"], entry["task"] or "-", "ROUGE-L" if rouge else "accuracy"]
        row += [str(counts["scored"]), str(counts["missing"]), *(f"{_overall(entry[name]):.4f}" for name in shown)]
        row += [f"{rouge[name]:.4f}" if rouge else "-" for name in ("rouge", "rouge_score")]
        rows.append(Row(tuple(row)))
    head = ("dataset", "task", "metric", "n", "missing", *shown, "rouge", "rouge-score")
    datasets = Table("", head, tuple(rows), text_columns=3)
    rows, by_dataset = [], {entry["dataset"]: entry for entry in scored}
    for column in task_columns(dict.fromkeys((*TASKS, *PAPER_COLUMNS)), DATASETS, by_dataset):
        weights = mean_weights(column.tree, by_dataset)
        means = [sum(weight * _overall(by_dataset[of][name]) for of, weight in weights.items()) for name in shown]
        rows.append(Row((column.name, f"{len(weights)} of {len(column.infos)}", *(f"{mean:.4f}" for mean in means))))
    return [datasets, Table("", ("task", "datasets", *shown), tuple(rows))] if len(scored) > 1 and rows else [datasets]


def _overall(result: dict[str, Any]) -> float:
    evaluation = result["eval"]
    return float(evaluation["Accuracy"] if "Accuracy" in evaluation else evaluation["Rouge-L f"])


def _warnings(scored: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for entry in scored:
        counts = next(entry[name] for name in PROTOCOLS if name in entry)["counts"]
        if counts["repeated"]:
            lines.append(f"{entry['dataset']}: {counts['repeated']} predictions are repeated and count once")
        if counts["other_truth"]:
            lines.append(
                f"{entry['dataset']}: {counts['other_truth']} predictions have another gt_response than the annotation "
                "and are scored against theirs, as in MileBench; is it the right annotation?"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
