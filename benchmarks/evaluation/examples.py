"""From samples to examples: prompts for a model, records before there is an answer, and single samples to look at."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.benchmark import Benchmark
from benchmarks.evaluation.records import SampleRecord
from benchmarks.milebench.combined import write_grid
from benchmarks.milebench.dataset import DATA_ERRORS, Dataset, read_dataset
from benchmarks.milebench.images import open_images
from benchmarks.milebench.prompts import PLACEHOLDER, Prompt, Reader
from benchmarks.milebench.scoring import answer_fault
from lookm.errors import LookmError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from benchmarks.evaluation.settings import Settings
    from lookm.models.backbone import Backbone


@dataclass(frozen=True)
class Example:
    """A sample with its prompt; `tokens` is its length with expanded images, without the conversation template."""

    sample_id: str
    prompt: Prompt
    tokens: int

    @property
    def context(self) -> tuple[str, ...]:
        """What is encoded before the question is read, the same for all questions of a context; else the sample."""
        text = self.prompt.before_question
        return (text, *self.prompt.images[: text.count(PLACEHOLDER)]) if self.prompt.question else (self.sample_id,)


@dataclass(frozen=True)
class ModelView:
    """One sample as one model is given it.

    Attributes:
        question: the prompt without the conversation template, one `<ImageHere>` per image.
        truth: the annotation's response.
        images: the images, in order, as the model sees them (padded to squares where it pads them).
        inputs: what `generate` gets, `input_ids` (1, L).
        tokens: the text of each prompt token, as far as one token has a text of its own.
    """

    dataset: str
    sample_id: str
    task: str
    question: str
    truth: str
    images: tuple[Image, ...]
    inputs: Mapping[str, Tensor]
    tokens: tuple[str, ...]


def read_datasets(settings: Settings) -> list[Dataset]:
    """Reads the datasets that a run selects, each with the samples that it selects; says which it leaves out.

    Raises:
        LookmError: as `read_dataset`, or if no sample is left.
    """
    select = partial(read_dataset, subset=settings.subset, seed=settings.seed, asked_later=settings.asked_later)
    datasets = [select(settings.benchmark, info, settings.limit) for info in settings.datasets]
    left_out = {dataset.name: dataset.left_out for dataset in datasets if dataset.left_out}
    if left_out:
        samples = ", ".join(f"{count} of {name}" for name, count in left_out.items())
        line = f"question={settings.question} leaves samples out whose question does not come last: {samples}"
        if not any(dataset.samples for dataset in datasets):
            raise LookmError(f"{line}, which are all; use question=seen")
        _say_once(line)
    return datasets


@lru_cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def build_examples(dataset: Dataset, names: Sequence[str], reader: Reader) -> Iterator[Example | tuple[str, Exception]]:
    """Builds the prompts of the named samples for a model; a sample that has none gives its name and the reason.

    Combined images that are not on disk yet are made. A sample whose answer could not be scored is not worth asking.
    """
    for name in names:
        sample = dataset.samples[name]
        try:
            fault = answer_fault(dataset.name, dataset.annotation, sample)
            if fault is not None:
                raise LookmError(fault)
            if dataset.combine_image is not None:
                write_grid(dataset.folder, sample)
            prompt = dataset.prompt(name, reader)
        except DATA_ERRORS as error:
            yield name, error
            continue
        text = len(reader.tokenizer(prompt.context, add_special_tokens=False).input_ids)
        yield Example(name, prompt, text + len(prompt.images) * reader.n_tokens_per_image)


def begin_record(dataset: Dataset, example: Example, root: Path, *, error: str | None = None) -> SampleRecord:
    """The record of a sample as far as it is known before there is an answer, or why there is none.

    Args:
        root: the benchmark's folder; paths of images are recorded relative to it.
    """
    prompt = example.prompt
    return SampleRecord(
        **dataset.facts(example.sample_id),
        error=error,
        question=prompt.context,
        images=tuple(Path(path).relative_to(root).as_posix() for path in prompt.images),
        dropped_images=prompt.dropped_images,
        dropped_tokens=prompt.dropped_tokens,
        notes=prompt.notes,
    )


def one_line(error: BaseException) -> str:
    """An exception in one line: its message, or its kind where it has none."""
    text = " ".join(str(error).split())
    known = isinstance(error, LookmError | OSError)
    return text if text and known else f"{type(error).__name__}: {text}" if text else type(error).__name__


def find_sample(benchmark: Benchmark, name: str) -> tuple[Dataset, str]:
    """The dataset and the id of a sample that is named as `DATASET/ID`, `DATASET` or a task code (their first sample).

    Raises:
        LookmError: no such dataset or sample; the message lists what there is.
    """
    place, _, sample_id = name.partition("/")
    infos = [info for info in benchmark.datasets if place in (info.dataset, info.task)]
    if not infos:
        names = ", ".join(info.dataset for info in benchmark.datasets)
        raise LookmError(f"unknown sample {name!r}; give DATASET/ID with a dataset of {benchmark.label}: {names}")
    dataset = read_dataset(benchmark, infos[0], None)
    ids = list(dataset.samples)
    if sample_id and sample_id not in dataset.samples:
        raise LookmError(f"{dataset.name} has no sample {sample_id!r}; its ids go from {ids[0]} to {ids[-1]}")
    return dataset, sample_id or ids[0]


def view_sample(backbone: Backbone, dataset: Dataset, sample_id: str) -> ModelView:
    """Builds one sample's prompt and inputs exactly as a run does.

    Raises:
        LookmError: the sample or one of its images cannot be read.
    """
    from lookm.kept_figure import token_texts
    from lookm.models.backbone import padded_to_square

    (example,) = build_examples(dataset, [sample_id], backbone)
    if not isinstance(example, Example):
        raise LookmError(f"{dataset.name}/{sample_id} has no prompt: {example[1]}")
    images = open_images(example.prompt.images)
    inputs = backbone.inputs([example.prompt.text], [images])
    if backbone.background is not None:
        images = [padded_to_square(image, backbone.background) for image in images]
    return ModelView(
        dataset=dataset.name,
        sample_id=sample_id,
        task=dataset.info.task,
        question=example.prompt.context,
        truth=str(dataset.samples[sample_id]["response"]),
        images=tuple(images),
        inputs=inputs,
        tokens=token_texts(backbone.tokenizer, inputs["input_ids"][0].tolist()),
    )
