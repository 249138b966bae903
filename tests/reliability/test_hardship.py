"""Memory that does not suffice and numbers that are none cost the sample that they meet, and no other."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.evaluation import generate
from benchmarks.evaluation.records import SampleRecord, read_records
from benchmarks.evaluation.run import run
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.verify import difference
from lookm.models.backbone import Backbone
from lookm.strategy import Strategy
from lookm.sweep import SweepRow
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import NEEDLE

ONLY_NEEDLE = f"datasets={NEEDLE}"


def records(settings: Settings) -> dict[str, SampleRecord]:
    return read_records(settings.folder / NEEDLE / "samples.jsonl")


def limit_rows(monkeypatch: pytest.MonkeyPatch, rows: int, asked: list[int]) -> None:
    """A device that holds so many rows (samples × strategies) at once."""
    real = generate.generate_sweep

    def limited(
        model: Any, inputs: Mapping[str, Tensor], strategies: Sequence[Strategy], **named: Any
    ) -> list[SweepRow]:
        asked.append(len(inputs["input_ids"]) * len(strategies))
        if asked[-1] > rows:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, inputs, strategies, **named)

    monkeypatch.setattr(generate, "generate_sweep", limited)


def test_out_of_memory_is_answered_with_smaller_groups_and_the_same_answers(
    settings_of: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(ONLY_NEEDLE, "model.batch_size=4")
    reference = replace(settings, results_dir=tmp_path / "undisturbed")
    run(reference)
    asked: list[int] = []
    limit_rows(monkeypatch, 1, asked)
    assert run(settings).failed == 0
    assert (asked[0], min(asked)) == (4, 1)
    assert difference(settings.folder, reference.folder) == ""


def test_a_sample_that_is_too_large_alone_is_recorded_as_failed_and_tried_again(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(ONLY_NEEDLE, "model.batch_size=2", "limit=2")
    asked: list[int] = []
    limit_rows(monkeypatch, 0, asked)
    assert run(settings).failed == 2
    for record in records(settings).values():
        assert record.error is not None
        assert record.error.startswith("out of memory with this sample alone")
        assert "\n" not in record.error
    monkeypatch.undo()
    outcome = run(settings)
    assert (outcome.computed, outcome.failed) == (2, 0)


def test_another_error_of_the_device_is_not_taken_for_a_lack_of_memory(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **named: Any) -> list[SweepRow]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(generate, "generate_sweep", broken)
    settings = settings_of(ONLY_NEEDLE)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(settings)
    assert records(settings) == {}


def test_logits_that_are_not_finite_cost_only_the_sample_that_has_them(
    settings_of: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(ONLY_NEEDLE, "model.batch_size=4")
    reference = replace(settings, results_dir=tmp_path / "undisturbed")
    run(reference)
    real = Backbone.inputs

    def spoil(backbone: Backbone, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> Any:
        inputs = real(backbone, prompts, images)
        first = 0
        for pictures in images:
            if len(pictures) == 2:  # sample 1
                inputs["pixel_values"][first : first + 2] = float("nan")
            first += len(pictures)
        return inputs

    monkeypatch.setattr(Backbone, "inputs", spoil)
    outcome = run(settings)
    assert (outcome.computed, outcome.failed) == (4, 1)
    found = records(settings)
    assert {name: record.error for name, record in found.items() if record.error} == {"1": "the logits are not finite"}
    assert (found["1"].answer, found["1"].answer_tokens) == ("", ())
    monkeypatch.undo()
    assert run(settings).computed == 1, "mended, it is asked again"
    assert difference(settings.folder, reference.folder) == ""
