"""MileBench and MileBench-mini as tasks of lmms-eval: what their YAMLs call. Prompts and scores are our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.benchmark import Benchmark, DatasetInfo
from benchmarks.lmms_eval.messages import Question
from benchmarks.milebench.dataset import Dataset, read_dataset
from benchmarks.milebench.images import open_images
from benchmarks.milebench.prompts import PLACEHOLDER, Prompt, Reader
from lookm.errors import LookmError

if TYPE_CHECKING:
    from PIL.Image import Image

    from lookm.models.backbone import Backbone

Doc = Mapping[str, Any]
"""One line of a task's file: `root` of the benchmark, `dataset`, its `task`, `sample_id` and `response`."""


class SampleMessages(list[dict[str, Any]]):
    """A sample as chat messages, whole, for any model; `lookm` asks for its question, cut as MileBench cuts it."""

    def __init__(self, doc: Doc) -> None:
        prompt = _prompt(doc, WHOLE)
        images = iter(open_images(prompt.images))
        content: list[dict[str, Any]] = []
        for place, text in enumerate(prompt.text.split(PLACEHOLDER)):
            content += [{"type": "image", "url": next(images)}] if place else []
            content += [{"type": "text", "text": text}] if text else []
        super().__init__([{"role": "user", "content": content}])
        self._doc = doc

    def question(self, backbone: Backbone) -> Question:
        """What `run.py` asks this backbone."""
        prompt = _prompt(self._doc, backbone)
        images = tuple(open_images(prompt.images))
        return Question(prompt.text, images, prompt.dropped_images, prompt.dropped_tokens)


def doc_to_messages(doc: Doc) -> SampleMessages:
    """For models that read chats."""
    return SampleMessages(doc)


def doc_to_visual(doc: Doc) -> list[Image]:
    """For models that are given texts and pictures apart: the pictures, in their order."""
    return open_images(_prompt(doc, WHOLE).images)


def doc_to_text(doc: Doc) -> str:
    """The text for those models, with `<image>` where a picture belongs."""
    return _prompt(doc, WHOLE).text.replace(PLACEHOLDER, "<image>")


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """One answer's scores under both protocols, in [0, 1] and unrounded."""
    dataset = _dataset(doc["root"], doc["dataset"], doc["task"])
    return dataset.scores(dataset.samples[doc["sample_id"]], results[0])


def mean(scores: Sequence[float]) -> float:
    """A dataset's score, added as `run.py` adds it."""
    return fmean(scores)


def __getattr__(name: str) -> Callable[..., float]:
    """`mean_of_3_1`: the mean of two means, of the first three values and of the one behind them.

    A YAML names a function but cannot give it arguments, and lmms-eval hands a group the values of all its datasets in
    one list.
    """
    if not name.startswith("mean_of_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    sizes = [int(size) for size in name.removeprefix("mean_of_").split("_")]

    def mean_of_means(values: Sequence[float], *_: Any) -> float:
        if len(values) != sum(sizes):
            raise LookmError(f"a group of {sum(sizes)} datasets was given {len(values)} scores")
        rest = iter(values)
        return sum(
            weight * value for size in sizes for value in islice(rest, size) for weight in [1 / size / len(sizes)]
        )

    return mean_of_means


class _Letters:
    """A tokenizer whose tokens are letters: what goes in comes out."""

    def __call__(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[ord(letter) for letter in text])

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))


WHOLE: Any = SimpleNamespace(tokenizer=_Letters(), n_tokens_per_image=0, max_context_len=10**9)
"""A reader that every prompt fits into as it is."""


@lru_cache
def _dataset(root: str, name: str, task: str) -> Dataset:
    benchmark = Benchmark("", "", Path(root), (), prepare=lambda: None)
    return read_dataset(benchmark, DatasetInfo(name, task, "accuracy", 0, None), None)


def _prompt(doc: Doc, reader: Reader) -> Prompt:
    return _dataset(doc["root"], doc["dataset"], doc["task"]).prompt(doc["sample_id"], reader)
