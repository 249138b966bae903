"""From the samples that runs miss to encoded batches, the next one prepared while the model answers the last one."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.evaluation.examples import Example, begin_record, build_examples, one_line
from benchmarks.evaluation.records import SampleRecord
from benchmarks.milebench.dataset import DATA_ERRORS, Dataset
from benchmarks.milebench.images import open_images
from benchmarks.milebench.prompts import PLACEHOLDER
from lookm.errors import LookmError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lookm.models.backbone import Backbone
    from lookm.questions import Questions

Item = TypeVar("Item")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Encoded:
    """Examples and their model inputs, as `Backbone.inputs` returns them.

    Attributes:
        inputs: of their prompts; with `questions` of their contexts alone.
        questions: one a sample, read after the compression; None: the prompts hold them.
        question_tokens: of the only sample, whose question has an image and is read in its context's pass.
    """

    samples: Sequence[Example]
    inputs: dict[str, torch.Tensor]
    questions: Questions | None = None
    question_tokens: int = 0


@dataclass(frozen=True)
class Batch:
    """Samples of one dataset that are answered at once.

    Attributes:
        parts: the samples to answer; one part, or each sample on its own where one spoils the batch.
        failures: records of the missing samples that have no prompt or whose images cannot be read or encoded.
    """

    dataset: Dataset
    parts: tuple[Encoded, ...] = ()
    failures: tuple[SampleRecord, ...] = ()


def read_batches(
    datasets: Sequence[Dataset],
    missing: Mapping[str, Collection[str]],
    backbone: Backbone,
    root: Path,
    *,
    rank: int = 0,
    size: int = 1,
) -> Iterator[Batch]:
    """Reads and encodes what is missing, batch by batch.

    A batch is always the same: it is made from all selected samples of the dataset, those with answers too, so that an
    answer does not depend on where a run was interrupted. Batches without a missing sample are left out.

    Args:
        missing: of each dataset the ids of those that some run misses.
        rank, size: of `size` processes that do the same, each takes the batches that fall to its `rank`: a batch goes
            to the one with the fewest padded tokens so far.

    Raises:
        LookmError: a dataset's folder has vanished.
    """
    loads = [0] * size
    for dataset in datasets:
        names = missing[dataset.name]
        if not names:
            continue
        examples, failures = _examples(dataset, names, backbone)
        if failures and rank == 0:
            yield Batch(dataset, failures=failures)
        for batch in group_by_length(examples, backbone.batch_size):
            if any(example.sample_id in names for example in batch):
                taker = loads.index(min(loads))
                loads[taker] += batch[0].tokens * len(batch)
                if taker == rank:
                    yield read_batch(dataset, batch, backbone, root, names)


def read_batch(
    dataset: Dataset, examples: Sequence[Example], backbone: Backbone, root: Path, names: Collection[str]
) -> Batch:
    """Reads and encodes one batch; where none of the named samples can be, nothing of it is left to answer.

    Raises:
        LookmError: the dataset's folder has vanished.
    """
    failures: list[SampleRecord] = []
    readable: list[tuple[Example, list[Image]]] = []

    def fail(example: Example, error: Exception) -> None:
        if not dataset.folder.is_dir():
            raise LookmError(f"{dataset.folder} has vanished; bring it back: the same command goes on from here")
        if example.sample_id in names:
            failures.append(begin_record(dataset, example, root, error=one_line(error)))

    for example in examples:
        try:
            readable.append((example, open_images(example.prompt.images)))
        except (LookmError, MemoryError) as error:
            fail(example, error)
    parts: list[Encoded] = []
    if any(example.sample_id in names for example, _ in readable):
        for part in _encode(backbone, readable):
            if isinstance(part, Encoded):
                parts.append(part)
            else:
                fail(*part)
    needed = tuple(part for part in parts if any(example.sample_id in names for example in part.samples))
    return Batch(dataset, needed, tuple(failures))


def group_by_length(examples: Sequence[Example], size: int) -> list[list[Example]]:
    """Groups examples of similar length, the longest first, so that little is padded and trouble shows early.

    A batch has so many contexts, each with all its questions.
    """
    contexts: dict[tuple[str, ...], list[Example]] = {}
    for example in examples:
        contexts.setdefault(example.context, []).append(example)
    ordered = sorted(contexts.values(), key=lambda asked: asked[0].tokens, reverse=True)
    return [list(chain.from_iterable(ordered[start : start + size])) for start in range(0, len(ordered), size)]


def prefetch(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The items in their order; while one is worked on, the next is made in a thread, and never more than that one.

    What making an item raises is raised here, in that item's place. Closing the iterator, as an exception in the loop
    over it does, waits for the item that is being made.
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        future = pool.submit(next, items, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, items, end)
            yield item  # type: ignore[misc]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the host."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)
    )


def _examples(
    dataset: Dataset, names: Collection[str], backbone: Backbone
) -> tuple[list[Example], tuple[SampleRecord, ...]]:
    """Examples of all selected samples, and records of the named ones that have none."""
    examples: list[Example] = []
    failures: list[SampleRecord] = []
    for built in build_examples(dataset, list(dataset.samples), backbone):
        if isinstance(built, Example):
            examples.append(built)
        elif built[0] in names:
            failures.append(SampleRecord(**dataset.facts(built[0]), error=one_line(built[1])))
    return examples, tuple(failures)


def _encode(
    backbone: Backbone, samples: Sequence[tuple[Example, list[Image]]]
) -> Iterator[Encoded | tuple[Example, Exception]]:
    """All samples in one batch; if that fails, each on its own, to find out which one spoils it."""
    if len(samples) > 1 and any(PLACEHOLDER in example.prompt.question for example, _ in samples):
        for pair in samples:
            yield from _encode(backbone, [pair])
        return
    try:
        yield _encoded(backbone, samples)
    except (*DATA_ERRORS, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        if len(samples) == 1:
            yield samples[0][0], error
            return
        for pair in samples:
            yield from _encode(backbone, [pair])


def _encoded(backbone: Backbone, samples: Sequence[tuple[Example, list[Image]]]) -> Encoded:
    """Samples that all hold their questions, or all come before them; a question with an image is alone."""
    examples, images = [example for example, _ in samples], [images for _, images in samples]
    texts = [example.prompt.text for example in examples]
    prompt = examples[0].prompt
    if not prompt.question:
        return Encoded(examples, backbone.inputs(texts, images))
    if PLACEHOLDER in prompt.question:
        later = backbone.question_tokens(prompt.before_question, prompt.text, images[0])
        return Encoded(examples, backbone.inputs(texts, images), question_tokens=later)
    rows = {context: row for row, context in enumerate(dict.fromkeys(example.context for example in examples))}
    shown = {rows[example.context]: pictures for example, pictures in samples}
    prompts = [(rows[example.context], text) for example, text in zip(examples, texts, strict=True)]
    contexts = [text for text, *_ in rows]
    inputs, questions = backbone.inputs_before_questions(contexts, [shown[row] for row in range(len(rows))], prompts)
    return Encoded(examples, inputs, questions)
