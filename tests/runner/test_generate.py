"""Too little memory means smaller sweeps and then a failed record; logits that are not finite mean a failed record."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.evaluation import batches, generate
from benchmarks.evaluation.batches import group_by_length, is_out_of_memory
from benchmarks.evaluation.examples import Example, build_examples, read_datasets
from benchmarks.evaluation.generate import NOT_FINITE, answer_examples
from benchmarks.evaluation.records import SampleRecord, read_records
from benchmarks.evaluation.run import load_backbone, run
from lookm.models.backbone import Backbone
from lookm.sweep import SweepRow
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import NEEDLE

Sizes = list[tuple[int, int]]
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


def asked(settings_of: MakeSettings, names: str = "full,h2o,tp") -> list[list[SampleRecord]]:
    """Four samples in one batch, under several strategies; without times."""
    settings = [
        settings_of(f"strategy={name}", f"datasets={NEEDLE}", "model.batch_size=4") for name in names.split(",")
    ]
    settings[0].benchmark.prepare()
    backbone = load_backbone(settings[0])
    (dataset,) = read_datasets(settings[0])
    prepared = [item for item in build_examples(dataset, list(dataset.samples), backbone) if isinstance(item, Example)]
    (batch,) = group_by_length(prepared, 4)
    found = answer_examples(
        backbone, [one.strategy for one in settings], dataset, batch, root=settings[0].benchmark.root
    )
    return [[replace(record, times=None) for record in records] for records in found]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], Sizes]:
    """Lets a sweep have at most so many strategies × samples; tells what was tried."""
    real = generate.generate_sweep

    def limit(rows: int, error: Exception) -> Sizes:
        tried: Sizes = []

        def narrow(model: Any, inputs: Any, strategies: Any, **named: Any) -> list[SweepRow]:
            tried.append((len(strategies), len(inputs["input_ids"])))
            if len(strategies) * len(inputs["input_ids"]) > rows:
                raise error
            return real(model, inputs, strategies, **named)

        monkeypatch.setattr(generate, "generate_sweep", narrow)
        return tried

    return limit


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (12, [(3, 4)]),
        (8, [(3, 4), (2, 4), (1, 4)]),
        (4, [(3, 4), (2, 4), (1, 4), (1, 4), (1, 4)]),
        (3, [(3, 4), (2, 4), (1, 4), (3, 2), (2, 2), (1, 2), (1, 2), (1, 2), (3, 2), (2, 2), (1, 2), (1, 2), (1, 2)]),
    ],
)
def test_fewer_strategies_are_tried_and_then_fewer_samples(
    settings_of: MakeSettings, room: Callable[[int, Exception], Sizes], rows: int, sizes: Sizes
) -> None:
    expected = asked(settings_of)
    tried = room(rows, ERRORS[rows % len(ERRORS)])
    assert asked(settings_of) == expected
    assert tried == sizes


def test_a_sample_that_is_too_much_alone_has_a_failed_record(
    settings_of: MakeSettings, room: Callable[[int, Exception], Sizes], capsys: pytest.CaptureFixture[str]
) -> None:
    generate._warn_out_of_memory.cache_clear()
    room(0, MemoryError())
    (first, *_), _ = asked(settings_of, "h2o,tp")
    assert first.error is not None
    assert re.fullmatch(r"out of memory with this sample alone \(\d+ tokens, h2o\)", first.error)
    assert first.question
    assert not first.answered
    assert capsys.readouterr().err.splitlines()[0] == (
        "out of memory with 4 samples × 2 strategies at once; trying less "
        "(a smaller model.batch_size saves these tries)"
    )


def test_a_batch_that_cannot_be_encoded_for_lack_of_memory_is_encoded_one_by_one(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = asked(settings_of)
    real = Backbone.inputs

    def narrow(backbone: Backbone, prompts: Any, images: Any) -> Any:
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(backbone, prompts, images)

    monkeypatch.setattr(Backbone, "inputs", narrow)
    assert asked(settings_of) == expected


def test_another_error_is_no_lack_of_memory(settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(map(is_out_of_memory, ERRORS))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(generate, "generate_sweep", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        asked(settings_of)
    monkeypatch.setattr(batches, "open_images", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        asked(settings_of)


def test_a_sample_with_logits_that_are_not_finite_fails_alone(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of("strategy=h2o", f"datasets={NEEDLE}")
    real = Backbone.inputs

    def poisoned(backbone: Backbone, prompts: Any, images: Any) -> Any:
        inputs = real(backbone, prompts, images)
        pictures = [len(row) for row in images]
        if 2 in pictures:
            first = sum(pictures[: pictures.index(2)])
            inputs["pixel_values"][first] = float("nan")
        return inputs

    monkeypatch.setattr(Backbone, "inputs", poisoned)
    outcome = run(settings)
    assert (outcome.computed, outcome.failed) == (4, 1)
    records = read_records(settings.folder / NEEDLE / "samples.jsonl")
    assert {name: record.error for name, record in records.items()} == {
        "0": None,
        "1": NOT_FINITE,
        "2": None,
        "3": None,
    }
    monkeypatch.setattr(Backbone, "inputs", real)
    assert (run(settings).computed, run(settings).failed) == (1, 0)
