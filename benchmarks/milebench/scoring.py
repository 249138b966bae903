"""Scores of one dataset's predictions, by MileBench's own evaluator (`official`) or by one that reads better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np

from benchmarks.milebench.official import choice_key, match_choice, normalise
from benchmarks.milebench.repaired import contains, find_choice
from benchmarks.milebench.rouge import rouge_l, rouge_score_l
from lookm.errors import LookmError

PROTOCOLS = ("official", "repaired")
LEVELS = ("Few", "Medium", "Many")

Protocol = Literal["official", "repaired"]
_Kind = Literal["needle", "substring", "rouge_l", "choice"]


@dataclass(frozen=True)
class _Pair:
    """A prediction beside its sample: `truth` is the prediction's own `gt_response`, as in the original."""

    sample_id: int | str
    truth: str
    answer: str
    n_images: int
    choices: tuple[str, ...]


def score_predictions(
    dataset: str,
    annotation: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    *,
    protocol: str = "official",
) -> dict[str, Any]:
    """Score the predictions of one dataset; samples without one are left out and counted.

    Args:
        dataset: the dataset's name, by which MileBench's evaluator chooses the metric.
        annotation: the dataset's annotation, as `read_annotation` returns it.
        predictions: records of a `pred.json`; read are `sample_id`, `pred_response` and `gt_response` (the annotation's
            `response` where it is absent). They are left as they are.
        protocol: "official" (MileBench's evaluator with all its quirks) or "repaired".

    Returns:
        - `eval`: as MileBench's `eval.json`: `Accuracy` or `Rouge-L f`, `image_quantity_level-Accuracy` and
          `image_quantity_level-Result` (sum, count) for Few, Medium and Many images;
        - `eval_score`: as its `eval_score.json`: `{id, score}` per prediction, as texts, in the predictions' order;
        - `extracted`, only where answers are matched with choices: the key read out of each answer;
        - `scores`: the unrounded score of each prediction, in the same order;
        - `rouge`, only for ROUGE-L: the mean by both implementations, `{"rouge": …, "rouge_score": …}`;
        - `counts`: `samples` of the annotation, `scored`, `missing` (no prediction), `repeated` (records that repeat
          another word for word), `other_truth` (`gt_response` is not the annotation's response);
        - `protocol`.

    Raises:
        LookmError: unknown protocol or question type, no predictions, a prediction of an unknown sample, two
            different ones of the same sample, a missing field, or a truth that is not among the choices.
    """
    if protocol not in PROTOCOLS:
        raise LookmError(f"unknown protocol {protocol!r}; there are: {', '.join(PROTOCOLS)}")
    kind = _kind(dataset, annotation)
    pairs, counts = _pair_up(dataset, annotation, predictions, with_choices=kind == "choice")
    official = protocol == "official"
    result: dict[str, Any] = {"protocol": protocol, "counts": counts}

    scores: list[float]
    if kind == "choice":
        judged = [_judge_choice(dataset, pair, official=official) for pair in pairs]
        scores = [score for score, _ in judged]
        result["extracted"] = [key for _, key in judged]
    elif kind == "rouge_l":
        by_rouge = [_official_rouge(pair) for pair in pairs]
        by_rouge_score = [rouge_score_l(pair.answer, pair.truth) for pair in pairs]
        scores = by_rouge if official else by_rouge_score
        result["rouge"] = {"rouge": float(np.mean(by_rouge)), "rouge_score": float(np.mean(by_rouge_score))}
    else:
        scores = [_judge_text(pair, whole_token=kind == "needle", official=official) for pair in pairs]

    result["scores"] = scores
    result["eval"] = _evaluation(scores, pairs, rouge=kind == "rouge_l")
    result["eval_score"] = [
        {"id": str(pair.sample_id), "score": str(round(score, 3))} for pair, score in zip(pairs, scores, strict=True)
    ]
    return result


def answer_fault(dataset: str, annotation: Mapping[str, Any], sample: Mapping[str, Any]) -> str | None:
    """Why no answer to a sample can be scored; None where one can. Such a sample is not worth asking."""
    if _kind(dataset, annotation) != "choice":
        return None
    choices, truth = sample["task_instance"].get("choice_list") or [], str(sample["response"])
    if normalise(truth) in map(normalise, choices):
        return None
    return f"the right answer {truth!r} is none of its choices ({', '.join(map(repr, choices))})"


def chance_level(dataset: str, annotation: Mapping[str, Any], sample: Mapping[str, Any]) -> float | None:
    """Expected score of a guess: 1 / number of choices where answers are matched with choices, else None."""
    if _kind(dataset, annotation) != "choice":
        return None
    choices = sample["task_instance"].get("choice_list") or []
    return 1 / len(choices) if choices else None


def image_quantity_level(n_images: int) -> str:
    """MileBench's level of a sample by its number of images: Few < 6, Medium 6 to 31, Many > 31."""
    return "Few" if n_images < 6 else "Medium" if n_images <= 31 else "Many"


def _kind(dataset: str, annotation: Mapping[str, Any]) -> _Kind:
    """The metric, chosen in MileBench's order: by the name first, by the type of question second."""
    if "NeedleInAHaystack" in dataset:
        return "needle"
    if "MMCoQA" in dataset:
        return "substring"
    question_type = annotation["meta_data"]["question_type"]
    if question_type == "open-ended":
        return "rouge_l"
    if question_type == "multi-choice":
        return "choice"
    raise LookmError(f"{dataset}: question_type is {question_type!r}; it must be open-ended or multi-choice")


def _pair_up(
    dataset: str, annotation: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]], *, with_choices: bool
) -> tuple[list[_Pair], dict[str, int]]:
    samples = {_key(sample["sample_id"]): sample for sample in annotation["data"]}
    pairs: dict[str, _Pair] = {}
    repeated = other_truth = 0
    for place, record in enumerate(predictions):
        sample_id, answer = _field(dataset, record, "sample_id", place), _field(dataset, record, "pred_response", place)
        key = _key(sample_id)
        sample = samples.get(key)
        if sample is None:
            raise LookmError(
                f"{dataset}: prediction {place} is of sample {sample_id!r}, which the annotation does not have "
                f"({len(samples)} samples); is it the annotation of this dataset?"
            )
        instance, response = sample["task_instance"], str(sample["response"])
        truth = str(record.get("gt_response", response))
        choices = tuple(instance.get("choice_list") or ()) if with_choices else ()
        pair = _Pair(sample_id, truth, str(answer), len(instance["images_path"]), choices)
        if key in pairs:
            if pairs[key] != pair:
                raise LookmError(f"{dataset}: sample {sample_id!r} has two different predictions; keep one of them")
            repeated += 1
            continue
        pairs[key] = pair
        other_truth += truth != response
    if not pairs:
        raise LookmError(f"{dataset}: there are no predictions to score")
    counts = {
        "samples": len(samples),
        "scored": len(pairs),
        "missing": len(samples) - len(pairs),
        "repeated": repeated,
        "other_truth": other_truth,
    }
    return list(pairs.values()), counts


def _key(sample_id: object) -> str:
    """The same key for 7, "7" and "007"; other ids by their text."""
    text = str(sample_id).strip()
    return str(int(text)) if text.isdecimal() and len(text) < 20 else text


def _field(dataset: str, record: Mapping[str, Any], name: str, place: int) -> Any:
    if not isinstance(record, Mapping):
        raise LookmError(f"{dataset}: prediction {place} is not an object with sample_id and pred_response")
    if record.get(name) is None:
        raise LookmError(f"{dataset}: prediction {place} (sample {record.get('sample_id')!r}) has no {name}")
    return record[name]


def _judge_choice(dataset: str, pair: _Pair, *, official: bool) -> tuple[int, str]:
    choices = [normalise(choice) for choice in pair.choices]
    truth = normalise(pair.truth)
    if truth not in choices:
        raise LookmError(f"{dataset}: the truth {pair.truth!r} of sample {pair.sample_id!r} is none of its choices")
    if official:
        key = match_choice(normalise(pair.answer), choices)
        return int(key == choice_key(choices.index(truth))), key
    index = find_choice(pair.answer, pair.choices, lettered=dataset != "GPR1200")
    if index is None:
        return 0, ""
    # Two choices may normalise to the same text, or be the same.
    right = pair.choices[index] == pair.truth if pair.truth in pair.choices else choices[index] == truth
    return int(right), choice_key(index)


def _judge_text(pair: _Pair, *, whole_token: bool, official: bool) -> int:
    truth, answer = normalise(pair.truth), normalise(pair.answer)
    if not official and whole_token:
        return int(contains(pair.answer, pair.truth))
    if not official and not answer:
        return 0
    return int(truth in (answer.split() if whole_token else answer))


def _official_rouge(pair: _Pair) -> float:
    # An empty answer scores the integer 0, which eval_score.json shows as "0" and not as "0.0".
    answer = normalise(pair.answer)
    return rouge_l(answer, normalise(pair.truth)) if answer else 0


def _added(values: Sequence[float]) -> float:
    """The sum from left to right, as MileBench's own Python makes it: from 3.12 on, `sum` corrects its rounding."""
    return reduce(add, values, 0)


def _evaluation(scores: Sequence[float], pairs: Sequence[_Pair], *, rouge: bool) -> dict[str, Any]:
    by_level: dict[str, list[float]] = {level: [] for level in LEVELS}
    for score, pair in zip(scores, pairs, strict=True):
        by_level[image_quantity_level(pair.n_images)].append(score)
    name, overall = ("Rouge-L f", float(np.mean(scores))) if rouge else ("Accuracy", _added(scores) / len(scores))
    return {
        name: overall,
        "image_quantity_level-Accuracy": {
            level: float(np.mean(values)) if values else 0 for level, values in by_level.items()
        },
        "image_quantity_level-Result": {level: [_added(values), len(values)] for level, values in by_level.items()},
    }
