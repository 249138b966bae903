"""The model of a group once more, to see what its strategies kept of a sample."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.benchmark import Benchmark
from benchmarks.evaluation.examples import ModelView, view_sample
from benchmarks.evaluation.provenance import weights_digest
from benchmarks.evaluation.settings import construct
from benchmarks.evaluation.store import RunFolder
from benchmarks.files import bytes_in
from benchmarks.milebench.dataset import Dataset, read_dataset
from benchmarks.report.groups import Budget, Group, Row
from benchmarks.report.samples import SampleView, answers_of, image_source, plain_view
from lookm.errors import LookmError, message_of
from lookm.kept import KeptPositions, image_spans, kept_positions, token_grid
from lookm.models.source import weights_folder

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

_SMALL = 1 << 30
_MOST_BITS = 4_000_000


def load_model(group: Group, *, any_size: bool) -> Backbone:
    """Loads the model that a group's runs were made with, on the CPU or the first GPU.

    Args:
        any_size: also load weights that are not in a local folder of less than 1 GiB.

    Raises:
        LookmError: why not, in one line.
    """
    import torch
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    run = group.rows[0].run
    # What decides the answers is in the configuration; the fields that do not are as the last session had them.
    fields = {**run.resolved.get("model", {}), **{k: v for k, v in run.configuration["model"].items() if k != "name"}}
    folder = weights_folder(fields)
    if not any_size and (folder is None or bytes_in(folder) > _SMALL):
        raise LookmError("the model has no small weights in a folder here, and was not run again; --heat yes does")
    if folder is not None and run.about.get("weights") not in (None, weights_digest(folder)):
        raise LookmError("the weights on this disk are others than those of the runs")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return construct(fields, device=device, dtype=run.configuration.get("dtype", "float32"))
    except (OSError, MemoryError, RuntimeError, ImportError, ValueError) as error:
        raise LookmError(f"the model could not be loaded here: {message_of(error)}") from None


def sample_view(group: Group, budget: Budget, dataset: str, sample_id: str, model: Backbone | str) -> SampleView:
    """One sample with the answers of all runs at one budget, and what their strategies keep of it.

    Args:
        model: what encodes the sample once more, or why it is not run again.

    Raises:
        LookmError: the runs have no such sample.
    """
    rows = group.at(budget)
    answers = answers_of(group, rows, dataset, sample_id)
    benchmark = next((one for row in group.rows if (one := benchmark_of(row.run)) is not None), None)
    view = plain_view(group, answers, dataset, sample_id, benchmark.root if benchmark else None)
    if isinstance(model, str):
        return replace(view, why_not=model)
    try:
        digest = answers[0].row.run.records(dataset)[sample_id].digest
        sample = view_sample(model, _read(benchmark, dataset, sample_id, digest), sample_id)
        known = [(row, row.built) for row in rows if row.built is not None]
        kept = kept_positions(model.model, sample.inputs, [built for _, built in known])
        pairs = [(row, positions) for (row, _), positions in zip(known, kept, strict=True)]
        return replace(view, data=kept_view(sample, pairs))
    except LookmError as error:
        return replace(view, why_not=str(error))


def kept_view(sample: ModelView, kept: Sequence[tuple[Row, KeptPositions]]) -> dict[str, Any]:
    """What the page's script draws of a sample (`SampleView.data`).

    Raises:
        LookmError: the image tokens cannot be divided among the pictures.
    """
    is_image = kept[0][1].is_image
    images, begins = [], {}
    for number, (picture, span) in enumerate(
        zip(sample.images, image_spans(is_image, len(sample.images)), strict=True)
    ):
        rows, columns = token_grid(len(span), picture.width / picture.height)
        where = {"start": span.start, "stop": span.stop, "rows": rows, "columns": columns}
        images.append({"source": image_source(picture, number), **where})
        begins[span.start] = number
    flow: list[dict[str, Any]] = []
    for position, (text, image) in enumerate(zip(sample.tokens, is_image.tolist(), strict=True)):
        if position in begins:
            flow.append({"image": begins[position]})
        elif not image:
            flow.append({"text": text, "at": position})
    return {"flow": flow, "images": images, "kept": [kept_data(row.variant, positions) for row, positions in kept]}


def kept_data(name: str, kept: KeptPositions) -> dict[str, Any]:
    """What the script draws: per layer one text in base64.

    `heads` > 0: bits, head by head, each position one bit, first positions in high bits, each head from a new byte.
    `heads` = 0: a byte per position, 255 where all heads kept it; used where the bits of all heads are too many.
    """
    import numpy as np

    masks = [kept.mask(layer).numpy() for layer in range(len(kept.layers))]
    heads = masks[0].shape[0]
    if sum(mask.size for mask in masks) <= _MOST_BITS:
        packed = [np.packbits(mask, axis=1) for mask in masks]
    else:
        heads, packed = 0, [np.round(mask.mean(0) * 255).astype(np.uint8) for mask in masks]
    return {"name": name, "heads": heads, "layers": [base64.b64encode(p.tobytes()).decode() for p in packed]}


def benchmark_of(run: RunFolder) -> Benchmark | None:
    """The benchmark that was run, where its last session found it; None where that is not known any more."""
    root = run.resolved.get("benchmark", {}).get("root")
    if root is None:
        return None
    fields = {key: value for key, value in run.configuration["benchmark"].items() if key != "name"}
    try:
        return construct({**fields, "root": root})
    except LookmError:
        return None


def _read(benchmark: Benchmark | None, dataset: str, sample_id: str, digest: str) -> Dataset:
    """The dataset as the runs read it."""
    info = next((info for info in benchmark.datasets if info.dataset == dataset), None) if benchmark else None
    if benchmark is None or info is None:
        raise LookmError(f"the data of {dataset} are not where the runs found them")
    data = read_dataset(benchmark, info, None)
    if data.digests.get(sample_id) != digest:
        raise LookmError(f"sample {sample_id} of {dataset} is not any more what the runs were asked")
    return data
