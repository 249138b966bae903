"""MileBench's result files: `<run>/<Dataset>/pred.json`, and `eval.json` and `eval_score.json` beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.files import write_text, writing
from benchmarks.milebench.annotation import check_annotation, digest, read_annotation_file, read_json
from benchmarks.milebench.combined import read_variant
from benchmarks.milebench.taxonomy import DATASETS
from lookm.errors import LookmError


@dataclass(frozen=True)
class Case:
    """One dataset to score; `folder` is where its pred.json lies, None for a file that holds everything."""

    dataset: str
    annotation: dict[str, Any]
    predictions: list[dict[str, Any]]
    folder: Path | None


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Read a `pred.json`.

    Raises:
        LookmError: unreadable or broken file, or something else than a list of records.
    """
    content = read_json(path)
    try:
        check_predictions(content)
    except LookmError as error:
        raise LookmError(f"{path}: {error}") from None
    return content


def check_predictions(content: Any) -> None:
    """Check that parsed JSON is a list of records.

    Raises:
        LookmError: it is not.
    """
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise LookmError("these are no MileBench predictions: a list of records with sample_id and pred_response")


def write_evaluation(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `eval.json` and `eval_score.json`, byte for byte in the form of MileBench's evaluator.

    Args:
        result: what `score_predictions` returned.

    Raises:
        LookmError: the folder cannot be written to.
    """
    with writing(folder):
        write_text(folder / "eval.json", json.dumps(result["eval"]))
        write_text(folder / "eval_score.json", json.dumps(result["eval_score"], indent=4))


def collect_cases(results: Path, annotations: Path | None, dataset: str | None) -> list[Case]:
    """Everything to score, in the taxonomy's order.

    Args:
        results: a run's folder, a dataset's folder, a pred.json, or a file with annotation and predictions together.
        annotations: MileBench's folder or one annotation; None for a file with both. Of a folder, the variant is read
            (adversarial samples, combined images) that the run's `run.json` names, if there is one.
        dataset: only this dataset; the name where it cannot be read off a path.

    Raises:
        LookmError: nothing found there, no annotation, a broken file, or an annotation with another fingerprint than
            the run's.
    """
    if results.is_file():
        content = read_json(results)
        if isinstance(content, dict) and "predictions" in content:
            return [_complete_case(results, content)]
    paths = _prediction_files(results)
    if annotations is None:
        raise LookmError(f"{results} needs --annotations: MileBench's folder, or one <Dataset>.json")
    if annotations.is_file():
        return [_case_of_one_annotation(paths, annotations, dataset)]
    wanted = {dataset or path.parent.name: path for path in paths if len(paths) == 1 or _is_of(path, dataset)}
    if not wanted:
        raise LookmError(f"{results} has no predictions for {dataset!r}; it has {_names(paths)}")
    order = {info.dataset: place for place, info in enumerate(DATASETS)}
    return [
        _case_of_run(name, annotations, path)
        for name, path in sorted(wanted.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))
    ]


def _case_of_run(dataset: str, root: Path, predictions: Path) -> Case:
    """A dataset of MileBench's folder, in the variant that the run was asked."""
    run = _read_run(predictions)
    asked = run.get("configuration", {}).get("benchmark", {})
    adversarial, combine_image = asked.get("adversarial") is True, asked.get("combine_image")
    annotation = read_variant(root, dataset, adversarial=adversarial, combine_image=combine_image)
    _check_fingerprint(run, dataset, annotation, predictions, str(root))
    return Case(dataset, annotation, read_predictions(predictions), predictions.parent)


def _read_run(predictions: Path) -> dict[str, Any]:
    """The `run.json` of a `<run>/<Dataset>/pred.json`; empty where there is none, as for results of other programs."""
    path = predictions.parent.parent / "run.json"
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _check_fingerprint(run: Mapping[str, Any], dataset: str, annotation: Any, predictions: Path, source: str) -> None:
    """Raises LookmError where the run answered the samples of another annotation."""
    expected = run.get("data", {}).get(dataset)
    if expected is not None and expected != digest(annotation):
        raise LookmError(
            f"{predictions.parent} answered another annotation than {dataset}'s in {source} (run.json has its "
            "fingerprint); give the benchmark's folder that the run used, or score a pred.json that lies elsewhere"
        )


def _complete_case(path: Path, content: dict[str, Any]) -> Case:
    for name in ("dataset", "annotation"):
        if name not in content:
            raise LookmError(
                f"{path} has predictions but no {name!r}; it must hold dataset, annotation and predictions"
            )
    try:
        check_annotation(content["annotation"])
        check_predictions(content["predictions"])
    except LookmError as error:
        raise LookmError(f"{path}: {error}") from None
    return Case(str(content["dataset"]), content["annotation"], content["predictions"], None)


def _case_of_one_annotation(paths: Sequence[Path], annotations: Path, dataset: str | None) -> Case:
    name = dataset or annotations.stem.removesuffix("-adv").split("_combined_")[0]
    chosen = list(paths) if len(paths) == 1 else [path for path in paths if _is_of(path, name)]
    if not chosen:
        raise LookmError(f"{annotations} is of {name!r}, but there are only predictions for {_names(paths)}")
    annotation, run = read_annotation_file(annotations), _read_run(chosen[0])
    if run.get("configuration", {}).get("benchmark", {}).get("combine_image") is None:  # else names of grids were added
        _check_fingerprint(run, name, annotation, chosen[0], str(annotations))
    return Case(name, annotation, read_predictions(chosen[0]), chosen[0].parent)


def _is_of(path: Path, dataset: str | None) -> bool:
    return dataset is None or path.parent.name == dataset


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.parent.name for path in paths)


def _prediction_files(results: Path) -> list[Path]:
    if results.is_file():
        return [results.resolve()]
    if not results.is_dir():
        raise LookmError(f"{results} does not exist; give a run's folder, a dataset's folder in it, or a pred.json")
    if (results / "pred.json").is_file():
        return [results.resolve() / "pred.json"]
    found = sorted(results.glob("*/pred.json"))
    if not found:
        runs = sorted({path.parent.parent.name for path in results.glob("*/*/pred.json")})
        hint = f"; it holds the runs {', '.join(runs)}: give one of them" if runs else ""
        raise LookmError(f"{results} has no <Dataset>/pred.json{hint}")
    return found
