"""The model `lookm` with the least of lmms-eval that it needs; `scripts/check_lmms_eval.sh` runs the real one."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lookm.errors import LookmError
from tests.lmms_eval.trial import trial

DOC = {"question": trial.ASKS, "answer": "the badge of ada 7"}


@dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None

    def to_dict(self) -> dict[str, int | None]:
        return {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}


@dataclass
class GenerationResult:
    text: Any
    token_counts: TokenCounts


class Base:
    def __init__(self) -> None:
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    rank = property(lambda self: self._rank)


@pytest.fixture
def logged() -> list[dict[str, float]]:
    return []


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, float]]) -> Any:
    """`benchmarks.lmms_eval.model`, imported anew."""
    parts: dict[str, dict[str, Any]] = {
        "lmms_eval.api.instance": {
            "Instance": SimpleNamespace, "GenerationResult": GenerationResult, "TokenCounts": TokenCounts
        },
        "lmms_eval.api.model": {"lmms": Base},
        "lmms_eval.models.model_utils.gen_metrics": {
            "log_metrics": lambda *_, additional_metrics: logged.append(additional_metrics)
        },
    }  # fmt: skip
    for name, attributes in parts.items():
        for end in range(1, name.count(".") + 2):
            monkeypatch.setitem(sys.modules, ".".join(name.split(".")[:end]), ModuleType(name))
        vars(sys.modules[name]).update(attributes)
    for name, attributes in parts.items():
        vars(sys.modules[name]).update(attributes)
    monkeypatch.delitem(sys.modules, "benchmarks.lmms_eval.model", raising=False)
    from benchmarks.lmms_eval import model

    yield model
    sys.modules.pop("benchmarks.lmms_eval.model", None)


def chat(ask: Callable[..., Any], options: dict[str, Any] | None = None, task: str = "a") -> Any:
    return SimpleNamespace(args=("", ask, options or {}, 0, task, "test"))


def made(kind: Any, **arguments: Any) -> Any:
    model = kind("tiny", "tp_pmerge", device="cpu", **arguments)
    model.task_dict = {task: {"test": [DOC]} for task in "ab"}
    return model


def test_answers_come_back_in_order_with_their_bytes(module: Any, logged: list[dict[str, float]]) -> None:
    model = made(module.LookM, batch_size="2", alpha1=0.05, alpha2=0.05)
    requests = [chat(trial.interleaved), chat(trial.interleaved), chat(trial.film), chat(trial.film, task="b")]
    requests.append(chat(trial.film, {"max_new_tokens": 2}, task="b"))
    results = model.generate_until(requests)
    assert [result.text for result in results[:4]] == [DOC["answer"]] * 4
    assert [result.token_counts.output_tokens for result in results][3:] == [6, 2]
    counts = [result.token_counts.to_dict() for result in results]
    assert all(0.05 < count["kept_bytes"] / count["full_bytes"] < 0.2 for count in counts)
    (numbers,) = logged
    assert set(numbers) == {f"{task}{name}" for task in ("", "a/", "b/") for name in
                            ("kept_bytes", "full_bytes", "byte_budget")}  # fmt: skip
    assert numbers["kept_bytes"] == sum(count["kept_bytes"] for count in counts) / 5


def test_rounds_are_asked_until_the_task_ends_them(module: Any) -> None:
    (result,) = made(module.LookM).generate_until_multi_round([chat(trial.rounds)])
    assert result.text == [DOC["answer"]] * 2
    assert result.token_counts.output_tokens == 12


def test_texts_and_pictures_apart_are_the_same_question(module: Any) -> None:
    simple = made(module.SimpleLookM)
    args = (trial.text(DOC), {}, trial.pictures, 0, "a", "test")
    (result,) = simple.generate_until([SimpleNamespace(args=args)])
    (chatted,) = made(module.LookM).generate_until([chat(trial.interleaved)])
    assert result.text == chatted.text == DOC["answer"]
    assert result.token_counts.input_tokens == chatted.token_counts.input_tokens - 1  # no line after the last image
    with pytest.raises(LookmError, match="leave --force_simple out"):
        simple.generate_until_multi_round([])


def test_choices_of_one_question_encode_it_once(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = module.likelihoods
    monkeypatch.setattr(module, "likelihoods", lambda *given: calls.append(given[-1]) or plain(*given))
    simple = made(module.SimpleLookM)
    rest = (trial.pictures, 0, "a", "test")
    requests = [SimpleNamespace(args=(trial.text(DOC), f" {choice}", *rest)) for choice in ("a square", DOC["answer"])]
    requests.append(SimpleNamespace(args=(trial.text(DOC) + " Now.", lambda doc: doc["answer"], *rest)))
    results = simple.loglikelihood(requests)
    assert calls == [[" a square", f" {DOC['answer']}"], [DOC["answer"]]]
    assert results[1].text < results[0].text
    assert all(0 < result.token_counts.kept_bytes < result.token_counts.full_bytes for result in results)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.1}, "has no field 'alpha'"),
        ({"model.size": "7b"}, "model 'tiny' has no field 'size'"),
        ({"run.limit": 3}, "unknown argument 'run.limit'"),
        ({"budget": 0}, "budget=0"),
    ],
)
def test_wrong_arguments_are_named(module: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(LookmError, match=message):
        module.LookM("tiny", "h2o", device="cpu", **arguments)


def test_a_storage_makes_the_bytes_less(module: Any) -> None:
    plain, packed = (
        made(module.LookM, **more).generate_until([chat(trial.interleaved)])[0].token_counts.kept_bytes
        for more in ({}, {"storage": "kivi2"})
    )
    assert packed < plain


def test_a_budget_in_tokens_is_what_is_kept(module: Any) -> None:
    model = made(module.LookM, budget=64)
    (result,) = model.generate_until([chat(trial.interleaved)])
    counts = result.token_counts
    assert counts.kept_bytes * counts.input_tokens == 64 * counts.full_bytes
