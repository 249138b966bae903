"""Run folders as one pandas frame, a row for each sample of each run: all that tables, figures and reports read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from benchmarks.benchmark import DatasetInfo
from benchmarks.evaluation.cells import TIMES, sample_values
from benchmarks.evaluation.store import Results, RunFolder, find_runs
from benchmarks.milebench import PROTOCOLS
from lookm.registry import names_of, yaml_of

if TYPE_CHECKING:
    import pandas

SETTINGS = (
    *("run", "label", "model", "benchmark", "strategy", "variant", "alpha1", "alpha2", "budget", "nominal_budget"),
    *("semantics", "dtype", "seed", "adversarial", "combine_image"),
)
SAMPLE = (
    *("task", "dataset", "sample_id", *PROTOCOLS, "chance", "n_images", "answer", "answer_tokens", "error", "digest"),
    *("prompt_tokens", "image_tokens", "realised_budget", "kept_bytes", "full_bytes", "dropped_images"),
    *("dropped_tokens", *TIMES),
)
COLUMNS = (*SETTINGS, *SAMPLE)
_NUMBERS = ("alpha1", "alpha2", "budget", "nominal_budget", *PROTOCOLS, "chance", "realised_budget", *TIMES)


def collect(results: Results) -> pandas.DataFrame:
    """Every recorded sample of the runs in a results folder, a run folder, or several of either (see `read_frame`).

    Raises:
        LookmError: a folder that does not exist, holds no run, or one of another format.
    """
    return read_frame(find_runs(results))


def read_frame(runs: Iterable[RunFolder]) -> pandas.DataFrame:
    """Every recorded sample of the runs, failed ones included.

    Returns:
        A frame with the columns `COLUMNS`. `run` is the run's name, `label` what titles call model and benchmark,
        `strategy` such as "h2o" or, in another storage than the plain one, "h2o + kivi2", `variant` that and what is
        unusual about it; `alpha1`, `alpha2` are NaN and `semantics` is None where nothing is evicted, `budget` is NaN
        where none was given. `official`, `repaired` and `chance` are in [0, 1],
        NaN where there is no answer or no chance level; `error` is None for an answered sample; sizes are in bytes,
        times in milliseconds, NaN where other strategies were computed in the same step. `sample_id` is text.
    """
    import pandas

    listed = [run for run in runs if run.datasets]
    semantics = {run.configuration["strategy"].get("semantics") for run in listed} - {None}
    rows = [
        settings | sample_values(record) | {"dataset": dataset, "sample_id": name}
        for run in listed
        for settings in [run_settings(run, several_semantics=len(semantics) > 1)]
        for dataset in run.datasets
        for name, record in run.records(dataset).items()
    ]
    frame = pandas.DataFrame(rows, columns=list(COLUMNS))
    for column in ("error", "semantics"):  # pandas would make NaN of None
        frame[column] = frame[column].astype(object).where(frame[column].notna(), None)
    return frame.astype(dict.fromkeys(_NUMBERS, "float64"))


def run_settings(run: RunFolder, *, several_semantics: bool = False) -> dict[str, Any]:
    """A run's values of the columns `SETTINGS`; `several_semantics` puts the semantics into `variant`."""
    about, configuration = run.about, run.configuration
    labels, strategy = about.get("labels", {}), configuration["strategy"]
    unusual = [strategy["semantics"]] if several_semantics and strategy.get("semantics") else []
    unusual += ["capped"] if strategy.get("budget") is not None else []
    unusual += [f"{key}={value}" for key, value in changed_fields(strategy).items()]
    storage = strategy.get("storage", {})
    unusual += [f"storage.{key}={value}" for key, value in changed_fields(storage, "storage").items()]
    name = " + ".join([strategy["name"], *([storage["name"]] if storage else [])])
    return {
        "run": run.name,
        "label": " · ".join(str(labels.get(group, configuration[group]["name"])) for group in ("model", "benchmark")),
        "model": configuration["model"]["name"],
        "benchmark": configuration["benchmark"]["name"],
        "strategy": name,
        "variant": ", ".join([name, *map(str, unusual)]),
        **{name: strategy.get(name) for name in ("alpha1", "alpha2", "budget", "semantics")},
        "nominal_budget": about.get("nominal_budget"),
        "dtype": configuration["dtype"],
        "seed": configuration["seed"],
        "adversarial": bool(configuration["benchmark"].get("adversarial")),
        "combine_image": configuration["benchmark"].get("combine_image"),
    }


def budget_text(alpha1: float, alpha2: float, budget: float | None = None) -> str:
    """What was asked for: "0.1 + 0.1", or of a `budget` "20 %" or "256 tokens", with unequal halves in brackets."""
    halves = f"{alpha1:g} + {alpha2:g}"
    if budget is None:
        return halves
    asked = f"{100 * budget:g} %" if budget <= 1 else f"{budget:g} tokens"
    return asked if alpha1 == alpha2 else f"{asked} ({halves})"


def changed_fields(strategy: Mapping[str, Any], group: str = "strategy") -> dict[str, Any]:
    """The fields of a run's strategy (or storage) that its YAML has otherwise, budget, semantics and storage aside."""
    usual = _usual_fields(group, strategy["name"]) if strategy else {}
    shared = ("name", "alpha1", "alpha2", "budget", "semantics", "storage")
    return {key: value for key, value in strategy.items() if key not in shared and usual.get(key) != value}


def known_datasets(runs: Iterable[RunFolder]) -> tuple[DatasetInfo, ...]:
    """All datasets of the runs' benchmark, as `run.json` lists them, in its order."""
    infos = {
        name: DatasetInfo(dataset=name, **entry)
        for run in runs
        for name, entry in run.about.get("datasets", {}).items()
    }
    return tuple(infos.values())


@lru_cache
def _usual_fields(group: str, name: str) -> dict[str, Any]:
    return yaml_of(group, name) if name in names_of(group) else {}
