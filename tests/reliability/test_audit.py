"""A run whose cache is not what its strategy promises gets no results."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.evaluation import audit
from benchmarks.evaluation.audit import audit_records, promised_range
from benchmarks.evaluation.records import SampleRecord, read_records, write_records
from benchmarks.evaluation.run import run
from lookm.errors import BudgetError
from lookm.layer import Layer
from lookm.registry import load_strategy, strategy_names
from lookm.strategy import Strategy
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import NEEDLE

H2O = load_strategy("h2o", alpha1=0.1, alpha2=0.1)


def record(number: int = 0, **changes: object) -> SampleRecord:
    """A sample of 100 tokens of which H2O kept 20."""
    values = {
        "prompt_tokens": 100, "image_tokens": 40, "kept_tokens": (20, 20), "realised_budget": 0.2,
        "kept_bytes": 400, "full_bytes": 2000,
    }  # fmt: skip
    return SampleRecord(sample_id=number, digest="", **{**values, **changes})  # type: ignore[arg-type]


def test_what_was_promised_passes() -> None:
    kept = [record(), record(1, error="no image", kept_tokens=())]
    audit_records(H2O, "A", kept)
    with pytest.raises(BudgetError):  # the same failed sample, had it been answered
        audit_records(H2O, "A", [record(), record(1, kept_tokens=())])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kept_tokens": (20, 21)}, r"layer 1 kept 21 of 100 tokens, h2o promises 20 \(more\)"),
        ({"kept_tokens": (19, 20)}, r"layer 0 kept 19 of 100 tokens, h2o promises 20 \(less\)"),
        ({"kept_tokens": (100, 100)}, r"layer 0 kept 100 of 100 .* \(nothing was compressed\)"),
        ({"kept_tokens": ()}, "0 layers are recorded"),
        ({"prompt_tokens": 0}, "0 prompt tokens"),
        ({"realised_budget": 0.25}, "a realised budget of 0.25 is recorded, the layers kept 0.200000"),
        ({"realised_budget": None}, "a realised budget of None"),
        ({"kept_bytes": 2000}, "2000 of 2000 bytes do not fit to 20 of 100 tokens"),
    ],
)
def test_an_overrun_a_no_op_and_a_contradiction_are_told_apart(changes: dict[str, object], told: str) -> None:
    with pytest.raises(BudgetError, match=f"A, sample 7: .*{told}.*; results are not written") as error:
        audit_records(H2O, "A", [record(), record(7, **changes)])
    assert "\n" not in str(error.value)


def test_what_a_storage_keeps_is_held_against_its_promise() -> None:
    strategy = load_strategy("h2o", alpha1=0.1, alpha2=0.1, storage="kivi2")
    cache = {"head_size": 16, "itemsize": 4}
    full = 3 * 2 * 100 * 16 * 4  # three heads in all
    promised = 3 * strategy.storage.head_bytes(20, 16, 4)
    assert promised < full // 5
    audit_records(strategy, "A", [record(full_bytes=full, kept_bytes=promised)], cache)
    for wrong in (promised + 1, full // 5):
        with pytest.raises(
            BudgetError, match=rf"{wrong} bytes are kept, h2o \+ kivi2 promises {promised} for 20 of 100"
        ):
            audit_records(strategy, "A", [record(full_bytes=full, kept_bytes=wrong)], cache)


def test_a_strategy_that_promises_everything_at_a_small_budget_is_a_no_op() -> None:
    whole = [record(number, kept_tokens=(100, 100), realised_budget=1.0, kept_bytes=2000) for number in range(8)]
    union = load_strategy("tp_pmerge", alpha1=0.1, alpha2=0.1)
    assert promised_range(union, 100, 40) == (60, 70)
    with pytest.raises(BudgetError, match="nothing was compressed"):
        audit_records(union, "A", whole)
    few = [replace(item, image_tokens=5) for item in whole]
    assert promised_range(union, 100, 5) == (95, 100)
    audit_records(union, "A", few[:7])
    with pytest.raises(BudgetError, match="tp_pmerge kept all 8 prompts whole at a nominal budget of 20%"):
        audit_records(union, "A", few)
    audit_records(load_strategy("full"), "A", whole)


@given(st.integers(1, 60), st.data(), st.sampled_from(strategy_names()), st.sampled_from(["paper", "release"]))
def test_the_range_holds_the_promise_for_every_layout(
    length: int, data: st.DataObject, name: str, semantics: str
) -> None:
    layout = torch.tensor(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    strategy = load_strategy(name, alpha1=0.1, alpha2=0.2, semantics=semantics)
    low, high = promised_range(strategy, length, int(layout.sum()))
    assert low <= strategy.promised_tokens(layout) <= high


@pytest.mark.parametrize("at", ["the engine", "the results"])
def test_a_broken_strategy_fails_its_run_and_gets_no_results(
    settings_of: MakeSettings, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(f"datasets={NEEDLE}", "strategy=h2o")
    if at == "the engine":

        def one_too_many(strategy: Strategy, layer: Layer) -> Tensor:
            return torch.arange(strategy.promised_tokens(layer.is_image) + 1).expand(2, -1)

        monkeypatch.setattr(type(settings.strategy), "keep", one_too_many)
    else:
        run(settings)
        (settings.folder / NEEDLE / "pred.json").unlink()
        spoil(settings.folder / NEEDLE / "samples.jsonl", lambda item: replace(item, kept_bytes=item.full_bytes))
    with pytest.raises(BudgetError, match=r"h2o kept|do not fit"):
        run(settings)
    assert not (settings.folder / NEEDLE / "pred.json").exists()


def test_a_strategy_that_promises_and_keeps_everything_fails_its_run(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_ENOUGH", 4)
    settings = settings_of(f"datasets={NEEDLE}", "strategy=h2o")
    monkeypatch.setattr(type(settings.strategy), "promised_tokens", lambda strategy, is_image: is_image.numel())
    promised_range.cache_clear()
    with pytest.raises(BudgetError, match="h2o kept all 4 prompts whole at a nominal budget of 20%"):
        run(settings)
    assert not (settings.folder / NEEDLE / "pred.json").exists()
    promised_range.cache_clear()


def spoil(path: object, change: Callable[[SampleRecord], SampleRecord]) -> None:
    records = {name: change(item) for name, item in read_records(path).items()}  # type: ignore[arg-type]
    write_records(path, records, list(records))  # type: ignore[arg-type]
