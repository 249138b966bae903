"""Many strategies from one prefill: `generate_sweep`."""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, PreTrainedModel

from lookm.answers import first_difference
from lookm.context import led
from lookm.decoder import decoder_of
from lookm.errors import LookmError
from lookm.generation import is_looked_at, look_once
from lookm.joint import PER_TOKEN, Group, Limits, SweepRow
from lookm.memory import estimate_bytes, fitting_groups, free_bytes
from lookm.prompt import Prompt, image_mask, image_token_ids, read_prompt
from lookm.questions import Questions
from lookm.strategy import Strategy

__all__ = ["SweepRow", "first_differences", "generate_sweep"]


def generate_sweep(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    strategies: Sequence[Strategy],
    *,
    max_new_tokens: int,
    min_new_tokens: int = 1,
    pad_token_id: int,
    eos_token_ids: Collection[int] = (),
    questions: Questions | None = None,
    question_tokens: int = 0,
    memory_limit: int | None = None,
    cuda_graph: bool = False,
) -> list[SweepRow]:
    """Greedy answers under many strategies: the prompts are encoded once, and all rows are decoded as one batch.

    In float32 every row has the tokens that `look_once` with its strategy and `generate(do_sample=False)` give; in half
    precision a larger batch rounds differently, and near ties may fall the other way (`first_differences` counts them).
    The caches are estimated first. Strategies that do not fit together are run in groups, each with a prefill of the
    decoder of its own: encoding again costs no memory anywhere, which keeping the rows of later groups would. So does a
    strategy whose rows do not join (`Strategy.joins_sweeps`). One
    that shortens its prompt is encoded by itself, as `look_once` does it.

    Args:
        model: as for `look_once`.
        inputs: what `generate` would get; `input_ids` (B, L) left-padded, with its `attention_mask`.
        strategies: any number, in any mixture of budgets, semantics and fields.
        max_new_tokens: longest answer.
        min_new_tokens: shortest answer.
        pad_token_id: as for `generate`.
        eos_token_ids: tokens that end an answer; empty: those of the model's generation configuration.
        questions: of text, asked after the compression: `inputs` are the contexts before them, each encoded once for
            all its questions. None: the prompts hold their questions.
        question_tokens: the last so many tokens of the prompts are questions that are read after the compression, and
            that may have images; then every strategy encodes its prompts alone.
        memory_limit: bytes that the rows' caches may take; None: 80 % of the device's free memory.
        cuda_graph: capture the decode step as a CUDA graph (on a CPU the same step is called without one), where the
            generation configuration leaves the choice plainly greedy.

    Returns:
        One row a strategy, in their order.

    Raises:
        LookmError: for a model or call that cannot be compressed.
        BudgetError: if a layer keeps something else than a strategy promises.

    Example:
        >>> strategies = [load_strategy(name) for name in ("full", "h2o", "tp_pmerge")]
        >>> for row in generate_sweep(model, inputs, strategies, max_new_tokens=16, pad_token_id=0):
        ...     print(row.strategy.name, row.tokens)
    """
    _check_call(model, min_new_tokens, max_new_tokens)
    call = {
        **inputs,
        **({"eos_token_id": list(eos_token_ids)} if eos_token_ids else {}),
        **{"max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "pad_token_id": pad_token_id},
        **{"do_sample": False, "num_beams": 1},
    }
    if question_tokens:
        return [_encode_alone(model, call, one, question_tokens) for one in strategies]
    whole = [strategy for strategy in strategies if not strategy.shortens_prompt]
    rows = iter(_encode_once(model, call, whole, questions, memory_limit, cuda_graph) if whole else ())
    return [_ask_alone(model, call, one, questions) if one.shortens_prompt else next(rows) for one in strategies]


def _encode_once(
    model: PreTrainedModel,
    call: Mapping[str, Any],
    strategies: Sequence[Strategy],
    questions: Questions | None,
    memory_limit: int | None,
    cuda_graph: bool,
) -> list[SweepRow]:
    """The rows of strategies that share their prefill, or the vision tower's work at least."""
    prompt = read_prompt(call.get("input_ids"), None, call.get("attention_mask"), image_token_ids(model.config))
    images = [prompt.row_is_image(row) for row in range(len(prompt.starts))]
    later = call["max_new_tokens"]
    if questions is not None:
        _check_questions(questions, len(images), model)
        any_of_them = questions.ids[:1].expand(len(images), -1)  # `generate` tells what positions follow the contexts
        call = _following(call, any_of_them, torch.ones_like(any_of_them))
        images, later = [images[row] for row in questions.contexts], later + questions.length
    limit = free_bytes(prompt.is_image.device) if memory_limit is None else memory_limit
    needed = estimate_bytes(model.config, model.dtype, strategies, images, later)
    joint = [index for index, strategy in enumerate(strategies) if strategy.joins_sweeps]
    groups = [[joint[place] for place in group] for group in fitting_groups([needed[index] for index in joint], limit)]
    groups += [[index] for index, strategy in enumerate(strategies) if not strategy.joins_sweeps]
    sweep = _Sweep([[strategies[index] for index in group] for group in groups], prompt, questions, static=cuda_graph)
    with led(decoder_of(model)):
        model.generate(**call, custom_generate=sweep.run)  # type: ignore[operator]
    order = [index for group in groups for index in group]
    return [row for _, row in sorted(zip(order, sweep.rows, strict=True), key=lambda pair: pair[0])]


def _check_questions(questions: Questions, rows: int, model: PreTrainedModel) -> None:
    given = set(questions.contexts)
    if given != set(range(rows)):
        raise LookmError(f"the questions are about the contexts {sorted(given)}, but there are 0 to {rows - 1}")
    if bool((image_mask(questions.ids, image_token_ids(model.config)) & questions.mask.bool()).any()):
        raise LookmError("a question has an image; give it in the prompt, and question_tokens=… its length")


def _following(call: Mapping[str, Any], ids: Tensor, mask: Tensor) -> dict[str, Any]:
    """A call with tokens (B, Q) of text behind the prompts, of which `mask` (B, Q) shows the padding."""
    prompts = call.get("attention_mask")
    call = {**call, "attention_mask": torch.ones_like(call["input_ids"]) if prompts is None else prompts}
    new = {"input_ids": ids, "attention_mask": mask}
    rest = {
        name: torch.cat([call[name], new.get(name, torch.zeros_like(ids))], -1) for name in PER_TOKEN if name in call
    }
    return {**call, **rest}


def _ask_alone(
    model: PreTrainedModel, call: Mapping[str, Any], strategy: Strategy, questions: Questions | None
) -> SweepRow:
    """The row of a strategy that encodes its prompts as no other one does; again for a context's next question."""
    if questions is None:
        return _encode_alone(model, call, strategy)
    rows = len(call["input_ids"])
    _check_questions(questions, rows, model)
    of_row = [[n for n, context in enumerate(questions.contexts) if context == row] for row in range(rows)]
    answers: dict[int, tuple[tuple[int, ...], bool]] = {}
    for turn in range(max(map(len, of_row))):
        asked = [numbers[min(turn, len(numbers) - 1)] for numbers in of_row]
        with_questions = _following(call, questions.ids[asked], questions.mask[asked])
        answer = _encode_alone(model, with_questions, strategy, questions.length)
        answers |= dict(zip(asked, zip(answer.tokens, answer.finite, strict=True), strict=True))
    tokens, finite = zip(*(answers[number] for number in range(len(questions.contexts))), strict=True)
    return replace(answer, tokens=tokens, finite=finite)


def _encode_alone(
    model: PreTrainedModel, call: Mapping[str, Any], strategy: Strategy, question_tokens: int = 0
) -> SweepRow:
    """The row of a strategy whose prompt is encoded as for no other one, as `look_once` gives it."""
    finite: list[Tensor] = []  # of each step, (B,) bool
    watch = model.register_forward_hook(lambda _, args, output: finite.append(output.logits[:, -1].isfinite().all(-1)))
    try:
        with look_once(model, strategy) as session:
            session.question_tokens = question_tokens
            output = model.generate(**call)  # type: ignore[operator]
    finally:
        watch.remove()
    new = output[:, call["input_ids"].shape[1] :].tolist()
    ends = set(call.get("eos_token_id") or _listed(model.generation_config.eos_token_id))
    well = torch.stack(finite, 1).tolist()  # [B, steps]
    rows = [_until_end(tokens, ends, steps) for tokens, steps in zip(new, well, strict=True)]
    return SweepRow(strategy, tuple(tokens for tokens, _ in rows), session.report(), tuple(good for _, good in rows))


def _until_end(tokens: Sequence[int], ends: Collection[int], well: Sequence[bool]) -> tuple[tuple[int, ...], bool]:
    """A row's tokens to the one that ends it, or to the first logits that are not finite; whether all were finite."""
    length = next((n + 1 for n, token in enumerate(tokens) if token in ends), len(tokens))
    bad = next((n for n in range(length) if not well[n]), None)
    return tuple(tokens[: length if bad is None else bad]), bad is None


def _listed(ends: int | list[int] | None) -> list[int]:
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def _check_call(model: PreTrainedModel, min_new_tokens: int, max_new_tokens: int) -> None:
    if not 1 <= min_new_tokens <= max_new_tokens:
        raise LookmError(f"min_new_tokens={min_new_tokens} and max_new_tokens={max_new_tokens}: need 1 ≤ min ≤ max")
    if is_looked_at(model):
        raise LookmError("generate_sweep brings its own strategies; call it outside look_once")
    name, layers = type(model).__name__, DynamicCache(config=model.config)
    if getattr(model.config.get_text_config(decoder=True), "cross_attention_layers", None) or any(layers.is_linear):
        raise LookmError(f"{name} has layers with a state or with attention on images alone; for them, use look_once")
    if all(layers.is_sliding):
        raise LookmError(f"all layers of {name} have a window, no strategy compresses them; use look_once")


class _Sweep:
    """What `generate` calls after its preparations: every group in turn, on the same prepared prompt batch."""

    def __init__(
        self,
        groups: Sequence[Sequence[Strategy]],
        prompt: Prompt,
        questions: Questions | None,
        *,
        static: bool,
    ) -> None:
        self.groups, self.prompt, self.questions = groups, prompt, questions
        self.static = static
        self.rows: list[SweepRow] = []

    def run(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: object,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> Tensor:
        """Encode and decode; `generate` gets the prompt back, the answers are in `rows`."""
        ends = generation_config.eos_token_id
        assert generation_config.max_new_tokens is not None
        limits = Limits(
            max_new_tokens=generation_config.max_new_tokens,
            min_new_tokens=generation_config.min_new_tokens or 0,
            ends=_listed(ends),
            static=self.static,
        )
        for strategies in self.groups:
            group = Group(strategies, self.prompt, model.config, limits, self.questions)
            group.run(model, input_ids, LogitsProcessorList(map(copy, logits_processor)), model_kwargs)
            self.rows += group.results()
        return input_ids


def first_differences(ours: Sequence[SweepRow], theirs: Sequence[SweepRow]) -> list[list[int | None]]:
    """Where two sweeps' answers begin to differ.

    Args:
        ours: rows of some strategies on a prompt batch.
        theirs: rows of the same strategies on the same batch, from another precision, device or grouping.

    Returns:
        [strategy][prompt], as `first_difference` counts.
    """
    return [
        [first_difference(a, b) for a, b in zip(row.tokens, other.tokens, strict=True)]
        for row, other in zip(ours, theirs, strict=True)
    ]
