"""Run folders of the small benchmark with made-up answers, so that tables can be tested without a model."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.results import facts_of_benchmark, predictions_of
from benchmarks.evaluation.store import RunFolder
from benchmarks.files import write_json
from benchmarks.milebench import PROTOCOLS, score_predictions, write_evaluation
from benchmarks.milebench.dataset import Dataset, read_dataset
from tests.runner.small_benchmark import small_benchmark

STRATEGIES: dict[str, dict[str, Any]] = {
    "full": {"_target_": "baselines.full.Full"},
    "h2o": {"_target_": "baselines.h2o.H2O"},
}


class Folders:
    """Writes runs below `<root>/runs`; the benchmark lies in `<root>/data`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.benchmark = small_benchmark(root / "data")
        self.benchmark.prepare()
        self.results = root / "runs"

    def write(
        self,
        name: str,
        strategy: Mapping[str, Any],
        answer: Callable[[str, int], str | None],
        *,
        limit: int | None = None,
        fields: Callable[[str, int], Mapping[str, Any]] = lambda dataset, number: {},
        **changed: Any,
    ) -> Path:
        """Writes one run.

        Args:
            name: the run's folder.
            strategy: the strategy's part of the configuration, `name` included.
            answer: dataset and sample's number → the answer; None for a sample that failed.
            limit: only the first so many samples of each dataset.
            fields: dataset and sample's number → other fields of the sample's record.
            **changed: `model.<field>`, `benchmark.<field>` (nested mappings), `dtype`, `seed`, `question`, `weights`.
        """
        folder = RunFolder(self.results / name)
        datasets = [read_dataset(self.benchmark, info, limit) for info in self.benchmark.datasets]
        model = {"name": "random", "_target_": "tests.runner.random_llava.load_random", **changed.get("model", {})}
        benchmark = {
            "name": "small",
            "_target_": "tests.runner.small_benchmark.small_benchmark",
            **changed.get("benchmark", {}),
        }
        folder.describe(
            name=name,
            **facts_of_benchmark(self.benchmark),
            labels={"model": "random LLaVA", "benchmark": "small benchmark", "strategy": strategy["name"]},
            generation={},
            configuration={
                "model": model,
                "benchmark": benchmark,
                "strategy": dict(strategy),
                "seed": changed.get("seed", 0),
                "dtype": changed.get("dtype", "float32"),
                "question": changed.get("question", "seen"),
            },
            weights=changed.get("weights", "0" * 16),
            data={dataset.info.dataset: dataset.data for dataset in datasets},
        )
        with folder.session(resolved={"benchmark": {"root": str(self.benchmark.root)}}):
            for dataset in datasets:
                folder.append(
                    dataset.info.dataset,
                    [
                        _record(
                            dataset,
                            key,
                            answer(dataset.info.dataset, number),
                            fields(dataset.info.dataset, number),
                        )
                        for number, key in enumerate(dataset.samples)
                    ],
                )
        for dataset in datasets:
            self._evaluate(folder, dataset)
        return folder.path

    def _evaluate(self, folder: RunFolder, dataset: Dataset) -> None:
        predictions = predictions_of(dataset, folder.records(dataset.info.dataset), "random", {})
        if predictions:
            scored = {
                protocol: score_predictions(dataset.info.dataset, dataset.annotation, predictions, protocol=protocol)
                for protocol in PROTOCOLS
            }
            target = folder.path / dataset.info.dataset
            write_json(target / "pred.json", predictions)
            write_evaluation(target, scored["official"])
            write_json(target / "repaired.json", {key: scored["repaired"][key] for key in ("eval", "eval_score")})


def _record(dataset: Dataset, sample: str, answer: str | None, fields: Mapping[str, Any]) -> SampleRecord:
    if answer is None:
        return SampleRecord(**dataset.facts(sample), error="image 0.png is missing")
    values: dict[str, Any] = {
        "answer": answer,
        "answer_tokens": tuple(answer.encode()),
        "prompt_tokens": 40,
        "image_tokens": 30,
        "kept_tokens": (8, 8),
        "realised_budget": 0.2,
        "kept_bytes": 80,
        "full_bytes": 400,
        "times": {"compress_ms": 1.0, "prefill_ms": 2.0, "decode_ms_per_token": 3.0, "batch": 1},
        "scores": dataset.scores(dataset.samples[sample], answer),
        **fields,
    }
    return SampleRecord(**{**dataset.facts(sample), **values})


def right(dataset: str, number: int) -> str:
    """The right answer to every sample."""
    return "left" if dataset == "SmallOrder" else "the ball"


def read_run(folder: Path) -> dict[str, Any]:
    """What a `run.json` says."""
    content: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return content
