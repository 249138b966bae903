"""Answers, rounds and likelihoods of a backbone under a strategy, with what its cache really held."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.lmms_eval.messages import Question
from lookm.conversation import later_tokens
from lookm.generation import look_once
from lookm.models.backbone import Backbone
from lookm.report import Report
from lookm.strategy import Strategy

NEVER_A_STOP = "\n\n"
"""lmms-eval adds it to every task's stop texts that names none; its own models pass over it, too."""


@dataclass(frozen=True)
class Answer:
    """One answer, and the cache it was given from.

    Attributes:
        text: without special tokens, cut before the first stop text.
        prompt_tokens: with expanded images and template; answer_tokens: with the end token.
        kept_bytes: the prompt's compressed cache, all layers; full_bytes: what its full cache would take.
    """

    text: str
    prompt_tokens: int
    answer_tokens: int
    kept_bytes: int
    full_bytes: int


def answers(
    backbone: Backbone, strategy: Strategy, questions: Sequence[Question], options: Mapping[str, Any]
) -> list[Answer]:
    """Answer questions as one batch.

    Args:
        options: lmms-eval's generation arguments: `until`, `max_new_tokens`, `min_new_tokens`, `do_sample`,
            `temperature`, `top_p`, `num_beams`; those that are absent are the backbone's, without sampling.
    """
    model: Any = backbone.model
    inputs = backbone.inputs([question.text for question in questions], [question.images for question in questions])
    with look_once(model, strategy) as session, torch.inference_mode():
        tokens = model.generate(**inputs, **generation(options, backbone))
        return _answers(backbone, tokens[:, inputs["input_ids"].shape[1] :], options, session.report())


def rounds(
    backbone: Backbone, strategy: Strategy, questions: Iterable[Question], options: Mapping[str, Any]
) -> Iterator[Answer]:
    """Answer a conversation's questions one after the other; the next one is asked for when the last one is answered.

    A question without images goes on from the cache: the first prompt's, compressed once, and what was said since. One
    that brings images is a prompt of its own.
    """
    model: Any = backbone.model
    cache, said = None, torch.zeros(1, 0)
    with look_once(model, strategy) as session, torch.inference_mode():
        for question in questions:
            if cache is None or question.images:
                inputs = backbone.inputs([question.text], [question.images])
            else:
                tokens = later_tokens(backbone, said, question.text)
                inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
                inputs |= {"past_key_values": cache}
            output = model.generate(**inputs, **generation(options, backbone), return_dict_in_generate=True)
            said, cache = output.sequences, output.past_key_values
            (answer,) = _answers(backbone, said[:, inputs["input_ids"].shape[1] :], options, session.report())
            yield answer


def generation(options: Mapping[str, Any], backbone: Backbone) -> dict[str, Any]:
    """Arguments of `generate`; a temperature of 0 is greedy, as in lmms-eval's own models."""
    temperature = options.get("temperature")
    sample = bool(options.get("do_sample")) if temperature is None else temperature > 0
    chosen = {
        "max_new_tokens": int(options.get("max_new_tokens") or backbone.max_new_tokens),
        "min_new_tokens": options.get("min_new_tokens"),
        "num_beams": int(options.get("num_beams") or 1),
        "do_sample": sample,
        "temperature": temperature if sample else None,
        "top_p": options.get("top_p") if sample else None,
        "pad_token_id": int(backbone.tokenizer.pad_token_id),
    }
    return {key: value for key, value in chosen.items() if value is not None}


def until(text: str, options: Mapping[str, Any]) -> str:
    """The text before the first of the stop texts in `options["until"]`."""
    stops = options.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        if stop and stop != NEVER_A_STOP:
            text = text.partition(stop)[0]
    return text.strip()


def likelihoods(
    backbone: Backbone, strategy: Strategy, question: Question, continuations: Sequence[str]
) -> tuple[list[tuple[float, bool]], Report]:
    """How likely continuations are after a question whose cache was compressed; the question is encoded once.

    Returns:
        For each continuation its mean negative log-likelihood a token (lmms-eval takes the smallest), and whether
        greedy decoding would give it; and the question's report.
    """
    inputs = backbone.inputs([question.text], [question.images])
    results = []
    with look_once(backbone.model, strategy) as session, torch.inference_mode():
        prompt = backbone.model(**inputs, use_cache=True)
        for continuation in continuations:
            ids = torch.tensor(backbone.encode(continuation), dtype=torch.long, device=backbone.model.device)
            if not len(ids):
                results.append((0.0, True))  # nothing to say is certain
                continue
            logits = _logits_after(backbone, prompt, ids)
            losses = torch.nn.functional.cross_entropy(logits.float(), ids, reduction="none")
            results.append((float(losses.mean()), bool((logits.argmax(-1) == ids).all())))
        return results, session.report()


def _logits_after(backbone: Backbone, prompt: Any, ids: Tensor) -> Tensor:
    """Logits (n, V) before each of the tokens ids (n,) that follow a prompt, whose cache is left as it was."""
    first = prompt.logits[0, -1:]
    if len(ids) == 1:
        return first
    cache = copy.deepcopy(prompt.past_key_values)
    return torch.cat([first, backbone.model(input_ids=ids[None, :-1], past_key_values=cache, use_cache=True).logits[0]])


def _answers(backbone: Backbone, new: Tensor, options: Mapping[str, Any], report: Report) -> list[Answer]:
    """What was generated (B, n) as answers, each with the bytes of its row."""
    given, ends = [], backbone.end_tokens
    for row, (text, tokens) in enumerate(zip(backbone.answers(new), new.tolist(), strict=True)):
        count = next((place for place, token in enumerate(tokens, start=1) if token in ends), len(tokens))
        kept, full = (sum(layer[row] for layer in table) for table in (report.kept_bytes, report.full_bytes))
        given.append(Answer(until(text, options), report.prompt_tokens[row], count, kept, full))
    return given
