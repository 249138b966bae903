"""Claims about run folders: MileBench's own evaluate.py and score.py find there what they read.

What they read, from https://github.com/MileBench/MileBench and the copy in https://github.com/SUSTechBruce/LOOK-M
(their code is not ours to ship, so this states what it asks for):

evaluate.py --data-dir DATA --dataset D --result-dir RESULTS/RUN [--adv]
    DATA/D/D.json (with --adv D-adv.json), RESULTS/RUN/D/pred.json: as many predictions as samples; `sample_id` equal to
    int(the annotation's); texts `gt_response` (not empty after normalisation for ROUGE-L, among the choices for
    choices) and `pred_response`. Writes eval.json, eval_score.json and, for choices, pred_with_extracted.json there.
score.py --result-dir RESULTS --models RUN …
    RESULTS/RUN/D/eval.json: a flat mapping whose values are numbers, but for three names that it skips.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation.results import predictions_of
from benchmarks.milebench import score_predictions
from benchmarks.milebench.dataset import read_dataset
from benchmarks.milebench.official import normalise
from tests.runner.small_benchmark import DATASETS
from tests.tables.run_folders import STRATEGIES, Folders, right

SKIPPED = ("image_quantity_level-Accuracy", "image_quantity_level-Result", "Diff-Accuracy")
FULL = {**STRATEGIES["full"], "name": "full"}


@pytest.fixture(params=[lambda number: number, str, lambda number: f"{number:03}"], ids=["int", "text", "padded"])
def folders(tmp_path: Path, request: pytest.FixtureRequest) -> Folders:
    """A run of a benchmark whose annotation has its ids as numbers or as texts, and one truth that is a number."""
    folders = Folders(tmp_path)
    for info in DATASETS:
        path = folders.benchmark.root / info.dataset / f"{info.dataset}.json"
        annotation = json.loads(path.read_text())
        for sample in annotation["data"]:
            sample["sample_id"] = request.param(sample["sample_id"])
        if info.task == "N-1":
            annotation["data"][0]["response"] = 7
        path.write_text(json.dumps(annotation))
    folders.write("run", FULL, right)
    return folders


def test_every_prediction_is_found_by_its_whole_number_and_has_what_the_evaluator_reads(folders: Folders) -> None:
    for info in DATASETS:
        annotation = json.loads((folders.benchmark.root / info.dataset / f"{info.dataset}.json").read_text())
        benchmark = read_dataset(folders.benchmark, info, None)
        records = _records(folders, info.dataset)
        predictions = json.loads(json.dumps(predictions_of(benchmark, records, "random", {"do_sample": False})))
        assert len(predictions) == len(annotation["data"])
        by_id = {prediction["sample_id"]: prediction for prediction in predictions}
        for sample in annotation["data"]:
            prediction = by_id[int(sample["sample_id"])]
            assert isinstance(prediction["gt_response"], str)
            assert isinstance(prediction["pred_response"], str)
            assert isinstance(prediction["image"], list)
            assert normalise(prediction["gt_response"])
            choices = sample["task_instance"].get("choice_list")
            assert choices is None or prediction["gt_response"] in choices
        # These ids and truths mean the same to our evaluator.
        scored = score_predictions(info.dataset, annotation, predictions)
        assert scored["counts"] == {
            **{"samples": len(predictions), "scored": len(predictions)},
            **{"missing": 0, "repeated": 0, "other_truth": 0},
        }


def test_the_evaluation_beside_it_has_the_form_that_score_py_reads(folders: Folders) -> None:
    for info in DATASETS:
        folder = folders.results / "run" / info.dataset
        evaluation: dict[str, Any] = json.loads((folder / "eval.json").read_text())
        metrics = {name: value for name, value in evaluation.items() if name not in SKIPPED}
        assert list(metrics) == ["Rouge-L f" if info.metric == "rouge_l" else "Accuracy"]
        assert all(isinstance(round(value * 100, 2), float) for value in metrics.values())
        scores = json.loads((folder / "eval_score.json").read_text())
        assert all(set(entry) == {"id", "score"} for entry in scores)
        assert all(isinstance(entry["id"], str) and isinstance(entry["score"], str) for entry in scores)


def _records(folders: Folders, dataset: str) -> Any:
    from benchmarks.evaluation.store import find_runs

    (run,) = find_runs(folders.results)
    return run.records(dataset)
