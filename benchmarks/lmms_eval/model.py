"""lmms-eval's model `lookm`: reads requests, answers them in batches, reports the bytes of every sample's cache."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from PIL import Image
from tqdm import tqdm

from benchmarks.lmms_eval.answers import Answer, answers, likelihoods, rounds
from benchmarks.lmms_eval.messages import Question, question_of
from benchmarks.lmms_eval.tasks import SampleMessages
from lookm.errors import LookmError
from lookm.registry import load_model, load_strategy

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tiff", ".webp")


@dataclass
class CacheCounts(TokenCounts):
    """What lmms-eval logs of a sample, and what the sample's cache held in bytes."""

    kept_bytes: int = 0
    full_bytes: int = 0

    def to_dict(self) -> dict[str, int | None]:
        """As it stands in `token_counts` of a logged sample."""
        return {**super().to_dict(), "kept_bytes": self.kept_bytes, "full_bytes": self.full_bytes}


@dataclass(frozen=True)
class _Request:
    """A request of lmms-eval: its place among those of the call, its task and document, and what is asked."""

    place: int
    task: str
    doc: Any
    ask: Any
    options: Mapping[str, Any]


class LookM(lmms):
    """Every backbone of `configs/model` under every strategy of `configs/strategy`.

    Args:
        model: the backbone's name; its fields are given as `model.path=…`, `model.quantization=4bit` …
        strategy: the strategy's name; its fields are given as `alpha1=0.05`, `semantics=release`,
            `strategy.text_prior=strict` …
        batch_size: prompts a batch; None takes the backbone's. `max_batch_size` is passed over.
        device, dtype: as of `lookm.registry.load_model`.
        max_num_frames: frames read of a video, evenly over its length.
        **fields: the strategy's fields, or with a dot those of the two.

    Raises:
        LookmError: an unknown name, field or value; what there is stands in the message.
    """

    is_simple = False

    def __init__(
        self,
        model: str = "tiny",
        strategy: str = "tp_pmerge",
        *,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str = "auto",
        max_num_frames: int = 32,
        **fields: Any,
    ) -> None:
        super().__init__()
        groups: dict[str, dict[str, Any]] = {"model": {}, "strategy": {}}
        for key, value in fields.items():
            group, _, field = key.rpartition(".")
            if group and group not in groups:
                raise LookmError(f"unknown argument {key!r}; there are model.…=, strategy.…= and the strategy's fields")
            groups[group or "strategy"][field] = value
        if batch_size not in (None, "", "auto"):
            groups["model"]["batch_size"] = int(str(batch_size))
        self.strategy = load_strategy(strategy, **groups["strategy"])  # before the weights: it is read faster
        self._join_processes()
        if self._world_size > 1 and self.accelerator.device.type == "cuda":
            device = f"cuda:{self._rank}"
        self.backbone = load_model(model, device=device or "auto", dtype=dtype, **groups["model"])
        self.max_num_frames = int(max_num_frames)

    def _join_processes(self) -> None:
        """With `accelerate launch`, each process answers its share."""
        from accelerate import Accelerator

        accelerator = Accelerator()
        if accelerator.num_processes > 1:
            self.accelerator = accelerator
            self._rank, self._world_size = accelerator.local_process_index, accelerator.num_processes

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.backbone.model.device

    @property
    def tokenizer(self) -> Any:
        """The backbone's tokenizer."""
        return self.backbone.tokenizer

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers, with the bytes of each sample's cache."""
        begun = time.perf_counter()
        asked = [self._read(place, request) for place, request in enumerate(requests)]
        given: dict[int, Answer] = {}
        with tqdm(total=len(asked), disable=self.rank != 0, desc="Model Responding") as bar:
            for batch in self._batches(asked):
                texts = answers(self.backbone, self.strategy, [question for _, question in batch], batch[0][0].options)
                given |= {request.place: answer for (request, _), answer in zip(batch, texts, strict=True)}
                bar.update(len(batch))
        ordered = [given[request.place] for request in asked]
        _log(asked, ordered, time.perf_counter() - begun)
        return [_result(answer.text, [answer]) for answer in ordered]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """For each request the answers of all its rounds; the task says what each next round asks."""
        begun = time.perf_counter()
        asked = [self._read(place, request) for place, request in enumerate(requests)]
        results = []
        for request in tqdm(asked, disable=self.rank != 0, desc="Multi-round Responding"):
            said: list[Answer] = []
            for answer in rounds(self.backbone, self.strategy, self._questions(request, said), request.options):
                said.append(answer)
            results.append(said)
        _log(asked, [said[-1] for said in results], time.perf_counter() - begun)
        return [_result([answer.text for answer in said], said) for said in results]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Mean negative log-likelihood a token (lmms-eval takes the smallest), and whether it is the greedy answer.

        Neighbouring requests of the same question, as the choices of a task are, encode it once.
        """
        results: list[GenerationResult] = []
        bar = tqdm(total=len(requests), disable=self.rank != 0, desc="Loglikelihood")
        for (context, *rest), same in groupby(requests, key=lambda request: (request.args[0], *request.args[2:])):
            doc = self.task_dict[rest[2]][rest[3]][rest[1]] if rest else None
            question = self._question(_visual_messages(context, rest[0](doc) if rest else []))
            targets = [request.args[1] for request in same]
            texts = [target if isinstance(target, str) else str(target(doc)) for target in targets]
            pairs, report = likelihoods(self.backbone, self.strategy, question, texts)
            kept, full = (sum(layer[0] for layer in table) for table in (report.kept_bytes, report.full_bytes))
            counts = CacheCounts(input_tokens=report.prompt_tokens[0], kept_bytes=kept, full_bytes=full)
            # A plain pair would be made a text: lmms-eval 0.7.3 unwraps what every kind of request returns.
            results += [GenerationResult(pair, counts) for pair in pairs]
            bar.update(len(pairs))
        return results

    def _read(self, place: int, instance: Instance) -> _Request:
        """One request to generate; its six arguments are in the order of chat tasks."""
        _, ask, options, doc_id, task, split = instance.args
        return _Request(place, task, self.task_dict[task][split][doc_id], ask, options)

    def _batches(self, asked: Sequence[_Request]) -> Iterator[list[tuple[_Request, Question]]]:
        """Batches of requests of one task that ask for the same kind of answer, in their order."""
        batch: list[_Request] = []
        for request in asked:
            if batch and (
                len(batch) == self.backbone.batch_size
                or (request.task, request.options) != (batch[0].task, batch[0].options)
            ):
                yield [(one, self._question(one.ask(one.doc))) for one in batch]
                batch = []
            batch.append(request)
        if batch:
            yield [(one, self._question(one.ask(one.doc))) for one in batch]

    def _questions(self, request: _Request, said: Sequence[Answer]) -> Iterator[Question]:
        """The questions of a request's rounds; `said` holds the answers so far when the next one is asked for."""
        yield self._question(request.ask(request.doc))
        info = None
        for number in count(1):
            texts = [answer.text for answer in said]
            payload = request.ask(request.doc, round_idx=number, previous_output=texts, previous_round_info=info)
            if not (isinstance(payload, tuple) and len(payload) == 4):
                return
            messages, is_over, _, info = payload
            if is_over:
                return
            yield self._question(messages)

    def _question(self, messages: Any) -> Question:
        if isinstance(messages, SampleMessages):
            return messages.question(self.backbone)
        return question_of(messages, self.backbone, self._frames)

    def _frames(self, video: Any) -> list[Image.Image]:
        """Frames of a video: given one by one, or read from a file."""
        if isinstance(video, list | tuple) and all(isinstance(frame, Image.Image) for frame in video):
            return list(video)
        from lmms_eval.models.model_utils.load_video import read_video

        path = video.get("url") or video.get("video") if isinstance(video, dict) else video
        return [Image.fromarray(frame) for frame in read_video(path, num_frm=self.max_num_frames)]


class SimpleLookM(LookM):
    """The same for `--force_simple`: tasks that give texts and pictures apart, and those that ask for likelihoods."""

    is_simple = True

    def _read(self, place: int, instance: Instance) -> _Request:
        context, options, visual, doc_id, task, split = instance.args
        doc = self.task_dict[task][split][doc_id]
        return _Request(place, task, doc, lambda document: _visual_messages(context, visual(document)), options)

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Not here: tasks of several rounds are chats."""
        raise LookmError("tasks of several rounds are read as chats; leave --force_simple out")


def _visual_messages(context: str, visuals: Any) -> list[dict[str, Any]]:
    """A text and its pictures (or paths of videos) as one user's message."""
    content: list[dict[str, Any]] = []
    for visual in visuals or []:
        is_image = isinstance(visual, Image.Image) or Path(str(visual)).suffix.lower() in PICTURES
        content.append({"type": "image" if is_image else "video", "url": visual})
    return [{"role": "user", "content": [*content, {"type": "text", "text": context}]}]


def _result(text: Any, given: Sequence[Answer]) -> GenerationResult:
    """What lmms-eval is told: the text (or those of all rounds) and the counts, of the last round's cache."""
    last = given[-1]
    new = sum(answer.answer_tokens for answer in given)
    counts = CacheCounts(
        input_tokens=last.prompt_tokens, output_tokens=new, kept_bytes=last.kept_bytes, full_bytes=last.full_bytes
    )
    return GenerationResult(text, counts)


def _log(asked: Sequence[_Request], given: Sequence[Answer], seconds: float) -> None:
    """Puts tokens, time and mean bytes a sample, over all tasks and of each, into lmms-eval's result file."""
    if not given:
        return
    numbers: dict[str, float] = {}
    for task in dict.fromkeys(request.task for request in asked):
        own = [answer for request, answer in zip(asked, given, strict=True) if request.task == task]
        numbers |= _bytes(own, f"{task}/")
    tokens = sum(answer.answer_tokens for answer in given)
    log_metrics(seconds, tokens, tokens / seconds, additional_metrics=_bytes(given, "") | numbers)


def _bytes(given: Sequence[Answer], prefix: str) -> dict[str, float]:
    kept, full = (fmean(getattr(answer, name) for answer in given) for name in ("kept_bytes", "full_bytes"))
    return {f"{prefix}kept_bytes": kept, f"{prefix}full_bytes": full, f"{prefix}byte_budget": kept / full}
