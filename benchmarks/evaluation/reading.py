"""From the samples that runs still miss to batches that a model can be asked: prompts, pictures, model inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.evaluation.memory import is_out_of_memory
from benchmarks.evaluation.preparation import (
    DATA_ERRORS,
    Dataset,
    Prepared,
    batches,
    one_line,
    open_images,
    prepare_prompts,
)
from benchmarks.evaluation.records import SampleRecord
from lookm.errors import LookmError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lookm.models.backbone import Backbone


@dataclass(frozen=True)
class Encoded:
    """Samples and their model inputs, as `Backbone.inputs` returns them."""

    samples: Sequence[Prepared]
    inputs: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Unit:
    """What is asked at once: a batch of samples of one dataset.

    Attributes:
        dataset: where the samples are from.
        parts: the samples to ask; one part, or each sample on its own where one spoils the batch.
        failures: records of the missing samples that have no prompt or whose pictures cannot be read or encoded.
    """

    dataset: Dataset
    parts: tuple[Encoded, ...] = ()
    failures: tuple[SampleRecord, ...] = ()


def read_units(
    datasets: Sequence[Dataset],
    missing: Mapping[str, Collection[str]],
    backbone: Backbone,
    root: Path,
    *,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Unit]:
    """Reads and encodes, batch by batch, what is missing.

    A batch is always the same: it is made from all selected samples of the dataset, those with answers too, so that an
    answer does not depend on where a run was interrupted. Batches without a missing sample are left out.

    Args:
        datasets: the selected samples.
        missing: of each dataset the ids of those that some run misses.
        backbone: the model: its tokenizer, its image processor and its batch size are used.
        root: the benchmark's folder; paths of images are recorded relative to it.
        share: (k, n) gives the k-th, (k + n)-th … of these units, so that n processes can share the work.

    Raises:
        LookmError: a dataset's folder has vanished.
    """
    first, step = share
    number = 0
    for dataset in datasets:
        wanted = missing[dataset.info.dataset]
        if not wanted:
            continue
        prepared, failures = _prompts(dataset, wanted, backbone)
        if failures and number % step == first:
            yield Unit(dataset, failures=failures)
        number += bool(failures)
        for batch in batches(prepared, backbone.batch_size):
            if any(sample.sample_id in wanted for sample in batch):
                if number % step == first:
                    yield read_unit(dataset, batch, backbone, root, wanted)
                number += 1


def read_unit(
    dataset: Dataset, batch: Sequence[Prepared], backbone: Backbone, root: Path, wanted: Collection[str]
) -> Unit:
    """Reads and encodes one batch; where none of the wanted samples can be, nothing of it is left to ask.

    Raises:
        LookmError: the dataset's folder has vanished.
    """
    failures: list[SampleRecord] = []
    readable: list[tuple[Prepared, list[Image]]] = []

    def failed(sample: Prepared, error: Exception) -> None:
        if not dataset.folder.is_dir():
            raise LookmError(f"{dataset.folder} has vanished; bring it back: the same command goes on from here")
        if sample.sample_id in wanted:
            failures.append(asked(dataset, sample, root, error=one_line(error)))

    for sample in batch:
        try:
            readable.append((sample, open_images(sample.prompt.images)))
        except (LookmError, MemoryError) as error:
            failed(sample, error)
    parts: list[Encoded] = []
    if any(sample.sample_id in wanted for sample, _ in readable):
        for part in _encode(backbone, readable):
            if isinstance(part, Encoded):
                parts.append(part)
            else:
                failed(*part)
    to_ask = tuple(part for part in parts if any(sample.sample_id in wanted for sample in part.samples))
    return Unit(dataset, to_ask, tuple(failures))


def asked(dataset: Dataset, sample: Prepared, root: Path, *, error: str | None = None) -> SampleRecord:
    """The record of a sample, as far as it is known before there is an answer, and why there is none."""
    prompt = sample.prompt
    return SampleRecord(
        **dataset.facts(sample.sample_id),
        error=error,
        question=prompt.context,
        images=relative(prompt.images, root),
        dropped_images=prompt.dropped_images,
        dropped_tokens=prompt.dropped_tokens,
        notes=prompt.notes,
    )


def relative(paths: Sequence[str], root: Path) -> tuple[str, ...]:
    """Paths of images as records hold them."""
    return tuple(Path(path).relative_to(root).as_posix() for path in paths)


def _prompts(
    dataset: Dataset, wanted: Collection[str], backbone: Backbone
) -> tuple[list[Prepared], tuple[SampleRecord, ...]]:
    """Prompts of all selected samples, and records of the wanted ones that have none."""
    prepared: list[Prepared] = []
    failures: list[SampleRecord] = []
    for item in prepare_prompts(
        dataset,
        list(dataset.samples),
        tokenizer=backbone.tokenizer,
        max_context_len=backbone.max_context_len,
        n_tokens_per_image=backbone.n_tokens_per_image,
    ):
        if isinstance(item, Prepared):
            prepared.append(item)
            continue
        name, error = item
        if name in wanted:
            failures.append(SampleRecord(**dataset.facts(name), error=one_line(error)))
    return prepared, tuple(failures)


def _encode(
    backbone: Backbone, samples: Sequence[tuple[Prepared, list[Image]]]
) -> Iterator[Encoded | tuple[Prepared, Exception]]:
    """All samples in one batch; if that fails, each on its own, to find out which one spoils it."""
    texts, images = [sample.prompt.text for sample, _ in samples], [pictures for _, pictures in samples]
    try:
        yield Encoded([sample for sample, _ in samples], backbone.inputs(texts, images))
    except (*DATA_ERRORS, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        if len(samples) == 1:
            yield samples[0][0], error
            return
        for pair in samples:
            yield from _encode(backbone, [pair])
