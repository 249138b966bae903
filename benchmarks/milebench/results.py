"""MileBench's result files: `<run>/<Dataset>/pred.json`, and `eval.json` and `eval_score.json` beside it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.milebench.annotation import read_json
from lookm.errors import LookmError


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Read a `pred.json`.

    Raises:
        LookmError: unreadable or broken file, or something else than a list of records.
    """
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise LookmError(
            f"{path}: not MileBench predictions, which are a list of records with sample_id, pred_response"
        )
    return content


def write_evaluation(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `eval.json` and `eval_score.json`, byte for byte in the form of MileBench's evaluator.

    Args:
        folder: the dataset's folder in the run's.
        result: what `score_predictions` returned.

    Raises:
        LookmError: the folder cannot be written to.
    """
    try:
        _write(folder / "eval.json", json.dumps(result["eval"]))
        _write(folder / "eval_score.json", json.dumps(result["eval_score"], indent=4))
    except OSError as error:
        raise LookmError(f"{folder}: cannot write the evaluation: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
