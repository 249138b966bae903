"""The paper's numbers and the rows and columns of its tables, as `results/paper/` holds them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

from lookm.errors import LookmError
from lookm.locations import shipped

PAPER = shipped("benchmarks/paper", "results/paper")

Key = tuple[str, str, float | None, float | None, str]


@dataclass(frozen=True)
class PaperExperiment:
    """One table or figure of the paper.

    Attributes:
        name: such as "table1"; title: such as "Table 1".
        where: section, and what it leaves unsaid.
        models: names of the model YAMLs that it was made with.
        strategies: its rows, in its order; budgets: pairs of α1 and α2.
        columns: task codes of a table; datasets: panels of a figure. One of them is empty.
        ours: what this project chose because the text does not say it.
        scores: (model, strategy, α1, α2, column) → score in %; empty where the numbers are in a picture only. α1 and α2
            are None for the full cache.
    """

    name: str
    title: str
    where: str
    models: tuple[str, ...]
    strategies: tuple[str, ...]
    budgets: tuple[tuple[float, float], ...]
    columns: tuple[str, ...]
    datasets: tuple[str, ...]
    ours: tuple[str, ...]
    scores: dict[Key, float]

    def score(self, model: str, strategy: str, alpha1: float | None, alpha2: float | None, column: str) -> float | None:
        """The paper's score in %, or None where it has none."""
        return self.scores.get((model, strategy, alpha1, alpha2, column))

    def mean(self, model: str, strategy: str, alpha1: float | None, alpha2: float | None) -> float | None:
        """The mean of the paper's own scores over all of its columns, or None where one is missing."""
        scores = [self.score(model, strategy, alpha1, alpha2, column) for column in self.columns]
        known = [score for score in scores if score is not None]
        return fmean(known) if known and len(known) == len(scores) else None


def is_paper_benchmark(benchmark: Mapping[str, Any]) -> bool:
    """Whether a run's benchmark is the one that the paper's numbers are of, in its plain variant."""
    plain = not benchmark.get("adversarial") and benchmark.get("combine_image") is None
    return benchmark.get("name") == "milebench" and plain


@lru_cache(maxsize=1)
def paper_experiments() -> dict[str, PaperExperiment]:
    """The paper's tables and figures that can be run, by name.

    Raises:
        LookmError: `results/paper` is not there or broken.
    """
    try:
        described = json.loads((PAPER / "experiments.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LookmError(_broken(error)) from None
    rows = _rows("scores.csv")
    scores: dict[str, dict[Key, float]] = {}
    for row in rows:
        alphas = [float(row[name]) if row[name] else None for name in ("alpha1", "alpha2")]
        key = (row["model"], row["strategy"], alphas[0], alphas[1], row["task"])
        scores.setdefault(row["table"], {})[key] = float(row["score"])
    return {
        name: PaperExperiment(
            name=name,
            title=entry["title"],
            where=entry["where"],
            models=tuple(entry["models"]),
            strategies=tuple(entry["strategies"]),
            budgets=tuple((float(recent), float(important)) for recent, important in entry["budgets"]),
            columns=tuple(entry.get("columns", ())),
            datasets=tuple(entry.get("datasets", ())),
            ours=tuple(entry.get("ours", ())),
            scores=scores.get(name, {}),
        )
        for name, entry in described.items()
        if isinstance(entry, dict)
    }


@lru_cache(maxsize=1)
def measured_by_others() -> tuple[dict[str, str], ...]:
    """What other papers measured for LOOK-M: source, arxiv, model, measured, budget, method and score in %, as text.

    Raises:
        LookmError: `results/paper` is not there or broken.
    """
    return tuple(_rows("others.csv"))


def _rows(name: str) -> list[dict[str, str]]:
    try:
        with (PAPER / name).open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except (OSError, ValueError) as error:
        raise LookmError(_broken(error)) from None


def _broken(error: Exception) -> str:
    return f"{PAPER} cannot be read ({error}); it belongs to this repository: restore it"
