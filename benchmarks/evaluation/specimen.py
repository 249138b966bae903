"""One sample of a benchmark, ready to be looked at: its pictures, and the inputs that a run gives the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.evaluation.benchmark import Benchmark
from benchmarks.evaluation.preparation import Dataset, Prepared, open_images, prepare_prompts, read_dataset
from lookm.errors import LookmError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from lookm.models.backbone import Backbone


@dataclass(frozen=True)
class Specimen:
    """One sample as one model is given it.

    Attributes:
        dataset, sample_id, task: which.
        question: the prompt without the conversation template, one `<ImageHere>` per image.
        truth: the annotation's response.
        images: the pictures, in order, as the model sees them (padded to squares where it pads them).
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


def find_sample(benchmark: Benchmark, name: str) -> tuple[Dataset, str]:
    """The dataset and the id of a sample that is named as `DATASET/ID`, `DATASET` or a task code (their first sample).

    Raises:
        LookmError: no such dataset or sample; the message lists what there is.
    """
    wanted, _, sample_id = name.partition("/")
    infos = [info for info in benchmark.datasets if wanted in (info.dataset, info.task)]
    if not infos:
        names = ", ".join(info.dataset for info in benchmark.datasets)
        raise LookmError(f"unknown sample {name!r}; give DATASET/ID with a dataset of {benchmark.label}: {names}")
    dataset = read_dataset(benchmark, infos[0], None)
    ids = list(dataset.samples)
    if sample_id and sample_id not in dataset.samples:
        raise LookmError(f"{infos[0].dataset} has no sample {sample_id!r}; its ids go from {ids[0]} to {ids[-1]}")
    return dataset, sample_id or ids[0]


def prepare_specimen(backbone: Backbone, dataset: Dataset, sample_id: str) -> Specimen:
    """Builds one sample's prompt and inputs exactly as a run does.

    Raises:
        LookmError: the sample or one of its pictures cannot be read.
    """
    from lookm.models.backbone import padded_to_square

    (prepared,) = prepare_prompts(
        dataset,
        [sample_id],
        tokenizer=backbone.tokenizer,
        max_context_len=backbone.max_context_len,
        n_tokens_per_image=backbone.n_tokens_per_image,
    )
    if not isinstance(prepared, Prepared):
        raise LookmError(f"{dataset.info.dataset}/{sample_id} has no prompt: {prepared[1]}")
    pictures = open_images(prepared.prompt.images)
    inputs = backbone.inputs([prepared.prompt.text], [pictures])
    if backbone.background is not None:
        pictures = [padded_to_square(picture, backbone.background) for picture in pictures]
    return Specimen(
        dataset=dataset.info.dataset,
        sample_id=sample_id,
        task=dataset.info.task,
        question=prepared.prompt.context,
        truth=str(dataset.samples[sample_id]["response"]),
        images=tuple(pictures),
        inputs=inputs,
        tokens=tuple(_text(backbone, token) for token in inputs["input_ids"][0].tolist()),
    )


def _text(backbone: Backbone, token: int) -> str:
    """One token's text, with the space before it that some tokenizers leave out of a text's beginning."""
    text, piece = str(backbone.tokenizer.decode([token])), str(backbone.tokenizer.convert_ids_to_tokens(token))
    return f" {text}" if piece.startswith("▁") and not text.startswith(" ") else text
