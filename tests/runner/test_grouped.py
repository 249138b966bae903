"""Runs computed together leave what each leaves alone, and share the work."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation import batches, compute, generate
from benchmarks.evaluation.records import read_records
from benchmarks.evaluation.run import attempt_group, group_runs, run, run_group
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.verify import timeless
from lookm.errors import LookmError
from lookm.models.backbone import Backbone
from lookm.sweep import SweepRow
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import CHOICE, NEEDLE, ROUGE

ONLY_NEEDLE = f"datasets={NEEDLE}"
Sweep = Callable[..., list[SweepRow]]


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], int]]:
    """Every sweep's strategies and number of prompts."""
    seen: list[tuple[tuple[str, ...], int]] = []
    real = generate.generate_sweep

    def noted(model: Any, inputs: Any, strategies: Any, **named: Any) -> list[SweepRow]:
        seen.append((tuple(strategy.name for strategy in strategies), len(inputs["input_ids"])))
        return real(model, inputs, strategies, **named)

    monkeypatch.setattr(generate, "generate_sweep", noted)
    return seen


def several(settings_of: MakeSettings, *overrides: str) -> list[Settings]:
    return [settings_of(f"strategy={name}", *overrides) for name in ("full", "h2o", "tp_pmerge")]


def elsewhere(settings: Settings, folder: Path) -> Settings:
    return replace(settings, results_dir=folder)


def parsed(settings: Settings) -> dict[str, Any]:
    """A run's files without times; `run.json` parsed, since it lists datasets in the order of their completion."""
    files: dict[str, Any] = dict(timeless(settings.folder))
    return {**files, "run.json": json.loads(files["run.json"])}


def test_runs_together_leave_the_folders_that_each_leaves_alone(
    settings_of: MakeSettings, tmp_path: Path, sweeps: list[tuple[tuple[str, ...], int]]
) -> None:
    settings = [*several(settings_of), settings_of("strategy=h2o", "semantics=release", "alpha1=0.3")]
    outcomes = run_group(settings)
    assert [outcome.computed for outcome in outcomes] == [12] * 4
    assert sweeps == [(("full", "h2o", "tp_pmerge", "h2o"), n) for n in (3, 1)] * 3
    for one, outcome in zip(settings, outcomes, strict=True):
        alone = elsewhere(one, tmp_path / "alone")
        summary = run(alone).summary
        assert timeless(alone.folder) == timeless(one.folder)
        assert outcome.summary.rows.keys() == summary.rows.keys()
        assert outcome.summary.mean.scores == summary.mean.scores
        assert outcome.summary.mean.budget == summary.mean.budget
    assert outcomes[1].summary.mean.paired == 12, "the full cache was there to compare with"


def test_a_sweep_asks_only_the_runs_that_miss_a_batch(
    settings_of: MakeSettings, tmp_path: Path, sweeps: list[tuple[tuple[str, ...], int]]
) -> None:
    full, h2o, tp = several(settings_of)
    run(replace(full, datasets=tuple(info for info in full.datasets if info.dataset != ROUGE)))
    run(tp)
    lines = tp.folder / CHOICE / "samples.jsonl"
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[:-1]))  # its last, which is in the first batch
    sweeps.clear()
    assert [outcome.computed for outcome in run_group([full, h2o, tp])] == [4, 12, 1]
    assert sweeps == [
        (("h2o", "tp_pmerge"), 3), (("h2o",), 1),
        (("full", "h2o"), 3), (("full", "h2o"), 1),
        (("h2o",), 3), (("h2o",), 1),
    ]  # fmt: skip
    for one in (full, h2o, tp):
        alone = elsewhere(one, tmp_path / "alone")
        run(alone)
        assert parsed(one) == parsed(alone)


def test_pictures_and_prompts_are_read_once(settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    opened: list[str] = []
    real_inputs, real_open = Backbone.inputs, batches.open_images

    def inputs(backbone: Backbone, prompts: Sequence[str], images: Any) -> Any:
        encoded.append(len(prompts))
        return real_inputs(backbone, prompts, images)

    def open_images(paths: Sequence[str]) -> Any:
        opened.extend(paths)
        return real_open(paths)

    monkeypatch.setattr(Backbone, "inputs", inputs)
    monkeypatch.setattr(batches, "open_images", open_images)
    run_group(several(settings_of))
    assert encoded == [3, 1] * 3
    assert len(opened) == len(set(opened)) == 30


def test_what_is_there_is_not_computed_and_needs_no_model(settings_of: MakeSettings) -> None:
    settings = several(settings_of, "limit=2")
    first = run_group(settings)

    def no_model(_: Settings) -> Backbone:
        raise AssertionError("the model was loaded although nothing is missing")

    again = run_group(settings, load=no_model)
    assert [outcome.computed for outcome in again] == [0, 0, 0]
    assert [outcome.summary for outcome in again[1:]] == [outcome.summary for outcome in first[1:]]


def test_groups_share_model_and_selection_and_a_run_comes_once_in_each(settings_of: MakeSettings) -> None:
    def groups(*overrides: tuple[str, ...]) -> list[list[int]]:
        return group_runs([settings_of(*one) for one in overrides])

    assert groups(("strategy=full",), ("strategy=h2o", "alpha1=0.3"), ("semantics=release", "strategy.merge=none")) == [
        [0, 1, 2]
    ]
    assert groups(("strategy=h2o",), ("strategy=full",), ("strategy=full", "alpha1=0.05")) == [[0, 1], [2]]
    assert groups(("strategy=h2o", "limit=1"), ("limit=1",), ("strategy=h2o", "limit=2"), ("limit=2",)) == [
        [0, 1], [2, 3]
    ]  # fmt: skip
    for change in ("seed=1", "dtype=bfloat16", "model.weights_seed=1", "model.batch_size=1", "limit=1", ONLY_NEEDLE):
        assert groups(("strategy=h2o",), ("strategy=tp", change)) == [[0], [1]], change
    assert groups(("strategy=h2o",), ("strategy=tp", "overwrite=true", "results_dir=x")) == [[0, 1]]


def test_a_folder_made_from_something_else_fails_its_run_only(settings_of: MakeSettings) -> None:
    full, h2o, tp = several(settings_of, ONLY_NEEDLE)
    run(h2o)
    about = h2o.folder / "run.json"
    about.write_text(about.read_text().replace('"dtype": "float32"', '"dtype": "float16"'))
    results = attempt_group([full, h2o, tp])
    assert isinstance(results[1], LookmError)
    assert "was computed with other configuration" in str(results[1])
    assert [result.computed for result in (results[0], results[2])] == [4, 4]  # type: ignore[union-attr]


def test_a_run_whose_folder_vanishes_fails_alone(settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = several(settings_of)
    real = compute.answer

    def vanish(*arguments: Any, **named: Any) -> Any:
        if not (settings[1].results_dir / "was here").exists():
            (settings[1].results_dir / "was here").touch()
            shutil.rmtree(settings[1].folder)
            settings[1].folder.touch()
        return real(*arguments, **named)

    monkeypatch.setattr(compute, "answer", vanish)
    results = attempt_group(settings)
    assert isinstance(results[1], LookmError)
    assert "\n" not in str(results[1])
    assert [result.computed for result in (results[0], results[2])] == [12, 12]  # type: ignore[union-attr]


def test_a_crash_is_laid_on_the_strategy_that_crashes(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generate.generate_sweep

    def crash(model: Any, inputs: Any, strategies: Any, **named: Any) -> list[SweepRow]:
        if any(strategy.name == "h2o" for strategy in strategies):
            raise ZeroDivisionError("no heavy hitter")
        return real(model, inputs, strategies, **named)

    monkeypatch.setattr(generate, "generate_sweep", crash)
    settings = several(settings_of)
    full, h2o, tp = attempt_group(settings)
    assert isinstance(h2o, ZeroDivisionError)
    assert [full.computed, tp.computed] == [12, 12]  # type: ignore[union-attr]
    assert json.loads((settings[1].folder / "run.json").read_text())["state"] == "stopped by an error"
    monkeypatch.setattr(generate, "generate_sweep", real)
    assert run(settings[1]).computed == 12


def test_a_vanished_data_folder_ends_the_group_with_one_line(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = several(settings_of)
    real = batches.open_images

    def vanish(paths: Sequence[str]) -> Any:
        shutil.rmtree(settings[0].benchmark.root, ignore_errors=True)
        return real(paths)

    monkeypatch.setattr(batches, "open_images", vanish)
    for result in attempt_group(settings):
        assert isinstance(result, LookmError)
        assert "has vanished; bring it back" in str(result)
    assert not (settings[0].folder / CHOICE / "samples.jsonl").exists(), "nothing is recorded as failed"


def test_times_of_steps_that_strategies_share_belong_to_none_of_them(settings_of: MakeSettings) -> None:
    shared = [settings_of(f"strategy={name}", f"datasets={CHOICE}") for name in ("full", "h2o")]
    run_group(shared)
    alone = settings_of("strategy=tp", f"datasets={CHOICE}")
    run(alone)
    for settings in (*shared, alone):
        for record in read_records(settings.folder / CHOICE / "samples.jsonl").values():
            times = record.times or {}
            own = [times["compress_ms"], times["prefill_ms"], times["decode_ms_per_token"]]
            assert (own == [None] * 3) == (settings is not alone)
            assert times["decode_rows"] == (times["batch"] or 0) * (1 if settings is alone else 2)
