"""Looking through a benchmark's folder for what would spoil answers or scores."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.benchmark import Benchmark, DatasetInfo
from benchmarks.milebench.annotation import annotation_path, read_annotation
from benchmarks.milebench.dataset import Dataset, read_dataset
from benchmarks.milebench.images import open_image
from benchmarks.milebench.lengths import Lengths, Measure, measure_lengths
from benchmarks.milebench.official import normalise
from benchmarks.milebench.prompts import PLACEHOLDER
from lookm.errors import LookmError, message_of

KINDS = {
    "missing_dataset": "the dataset is not there, or its annotation cannot be read",
    "sample_count": "the dataset has another number of samples than MileBench's",
    "placeholder_without_image": "{image#k} with a k for which there is no image, or a bare <ImageHere>",
    "repeated_placeholder": "{image#k} more than once: prompts then have more places than images",
    "image_without_placeholder": "an image that no {image#k} shows: prompts then shift the images",
    "missing_image": "an image's file does not exist",
    "unreadable_image": "an image's file is no picture, or breaks off",
    "empty_choice": "a choice of which nothing is left when it is normalised",
    "duplicate_choice": "two choices that are the same when they are normalised",
    "prefix_choice": "a choice that another one begins with: the evaluator may find the wrong one",
    "answer_not_in_choices": "the right answer is none of the choices, so that no answer can score",
    "empty_answer": "there is no right answer",
    "adversarial_same": "the -adv samples are those of the normal set",
}

Flaw = tuple[str, str]  # a key of KINDS, and words
_NUMBERED = re.compile(r"\{(?:image|table)#([1-9][0-9]{0,8})\}")


@dataclass(frozen=True)
class Finding:
    """One thing found: what (a key of KINDS), where (`sample_id` is None for a whole dataset), and in words."""

    kind: str
    dataset: str
    sample_id: str | None
    detail: str


@dataclass(frozen=True)
class Inspected:
    """One dataset: its size, what was found, and how long its prompts are (None where that was not asked)."""

    info: DatasetInfo
    samples: int
    images: int
    fewest_images: int
    most_images: int
    findings: tuple[Finding, ...]
    lengths: Lengths | None

    @property
    def counts(self) -> dict[str, int]:
        """Findings by their kind."""
        return dict(Counter(finding.kind for finding in self.findings))


def inspect_dataset(
    benchmark: Benchmark,
    info: DatasetInfo,
    *,
    limit: int | None = None,
    measure: Measure | None = None,
    readers: int = 1,
) -> Inspected:
    """Looks through one dataset: every sample, and every picture to its last row."""
    try:
        dataset = read_dataset(benchmark, info, limit)
    except LookmError as error:
        finding = Finding("missing_dataset", info.dataset, None, message_of(error))
        return Inspected(info, 0, 0, 0, 0, (finding,), None)
    findings = list(_of_whole(benchmark, info, dataset.annotation))
    with ThreadPoolExecutor(readers) as pool:
        for name, flaws in zip(dataset.samples, pool.map(partial(_flaws, dataset), dataset.samples), strict=True):
            findings += [Finding(kind, info.dataset, name, detail) for kind, detail in flaws]
    counts = [len(sample["task_instance"]["images_path"]) for sample in dataset.samples.values()]
    lengths = measure_lengths(dataset, measure) if measure is not None else None
    return Inspected(info, len(counts), sum(counts), min(counts), max(counts), tuple(findings), lengths)


def _of_whole(benchmark: Benchmark, info: DatasetInfo, annotation: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with a dataset as a whole."""
    name, there = info.dataset, len(annotation["data"])
    if there != info.samples and not benchmark.adversarial:
        yield Finding("sample_count", name, None, f"{there} samples instead of {info.samples}")
    adversarial = annotation_path(benchmark.root, name, adversarial=True)
    if benchmark.adversarial or benchmark.combine_image is not None or not adversarial.is_file():
        return
    try:
        others = {
            str(sample["sample_id"]): sample
            for sample in read_annotation(benchmark.root, name, adversarial=True)["data"]
        }
    except LookmError as error:
        yield Finding("missing_dataset", name, None, message_of(error))
        return
    same = [sample for sample in annotation["data"] if _asked(others.get(str(sample["sample_id"]))) == _asked(sample)]
    if len(same) == there:
        yield Finding("adversarial_same", name, None, f"all {there} samples of {adversarial.name} are the normal ones")


def _asked(sample: Mapping[str, Any] | None) -> Any:
    """What makes a question another one: images, text, choices and answer."""
    if sample is None:
        return None
    instance = sample["task_instance"]
    fields = ("context", "images_path", "choice_list")
    return [str(sample["response"]), *(instance.get(field) for field in fields)]


def _flaws(dataset: Dataset, name: str) -> list[Flaw]:
    """The flaws of one sample."""
    sample = dataset.samples[name]
    instance, response = sample["task_instance"], str(sample["response"])
    field = "images" if dataset.combine_image is None else f"combined_{dataset.combine_image}_images"
    paths = instance["images_path" if dataset.combine_image is None else field]
    flaws = [*_placeholder_flaws(instance["context"], len(instance["images_path"]))]
    flaws += _picture_flaws([dataset.folder / field / path for path in paths])
    if dataset.annotation["meta_data"]["question_type"] == "multi-choice":
        flaws += _choice_flaws(instance["choice_list"], response)
    elif not normalise(response):
        flaws.append(("empty_answer", f"the answer is {response!r}"))
    return flaws


def _placeholder_flaws(context: str, n_images: int) -> Iterator[Flaw]:
    shown = Counter(int(number) for number in _NUMBERED.findall(context))
    for number, times in sorted(shown.items()):
        if number > n_images:
            yield "placeholder_without_image", f"{{image#{number}}}, but there are {n_images} images"
        elif times > 1:
            yield "repeated_placeholder", f"{{image#{number}}} stands there {times} times"
    if PLACEHOLDER in context:
        yield "placeholder_without_image", f"the text has {PLACEHOLDER} {context.count(PLACEHOLDER)} times"
    unshown = [number for number in range(1, n_images + 1) if number not in shown]
    if unshown:
        yield "image_without_placeholder", f"{len(unshown)} of {n_images} images, the first is {{image#{unshown[0]}}}"


def _picture_flaws(paths: Sequence[Path]) -> Iterator[Flaw]:
    for path in dict.fromkeys(paths):
        try:
            open_image(path)
        except LookmError as error:
            kind = "unreadable_image" if os.path.lexists(path) else "missing_image"
            yield kind, str(error)


def _choice_flaws(choices: Sequence[str], response: str) -> Iterator[Flaw]:
    normal = [normalise(choice) for choice in choices]
    for choice, text in zip(choices, normal, strict=True):
        if not text:
            yield "empty_choice", repr(choice)
    for text, times in Counter(text for text in normal if text).items():
        if times > 1:
            same = [choice for choice, other in zip(choices, normal, strict=True) if other == text]
            yield "duplicate_choice", ", ".join(map(repr, same))
    texts = [text for text in dict.fromkeys(normal) if text]
    for short in texts:
        longer = [text for text in texts if text != short and text.startswith(short)]
        if longer:
            yield "prefix_choice", f"{choices[normal.index(short)]!r} and {choices[normal.index(longer[0])]!r}"
    if normalise(response) not in normal:
        yield "answer_not_in_choices", f"{response!r} is none of {', '.join(map(repr, choices)) or 'no choices'}"
