"""One sample as the report shows it: question, pictures, truth, all answers, and what each strategy kept of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.examples import ModelView
from benchmarks.evaluation.records import SampleRecord
from benchmarks.milebench import PLACEHOLDER
from benchmarks.report.changes import first_difference
from benchmarks.report.scenes import Row, Scene
from lookm.errors import LookmError

if TYPE_CHECKING:
    from PIL.Image import Image

    from lookm.kept import KeptPositions

_SIDE = 144
_MOST_IMAGES = 60
_MOST_BITS = 4_000_000


@dataclass(frozen=True)
class Answer:
    """What one run answered: scores in [0, 1] or None, `differs_at` the first token that is not the full cache's."""

    row: Row
    text: str
    official: float | None
    repaired: float | None
    budget: float | None
    differs_at: int | None
    error: str | None


@dataclass(frozen=True)
class SampleView:
    """One sample in the report.

    Attributes:
        specimen: the sample as the model gets it.
        answers: of all runs at one budget.
        data: for the page's script: `flow` (texts, with the position of their token, and numbers of images, in reading
            order), `images` (data URI, token span, grid) and `kept` (see `_kept_data`; empty without a rerun).
        why_not: why it is not shown what was kept; empty where it is.
    """

    dataset: str
    sample_id: str
    task: str
    truth: str
    answers: tuple[Answer, ...]
    data: dict[str, Any]
    why_not: str = ""


def answers_of(scene: Scene, rows: Sequence[Row], dataset: str, sample_id: str) -> tuple[Answer, ...]:
    """The runs' answers to one sample; runs without it are left out."""
    table = scene.table[(scene.table.dataset == dataset) & (scene.table.sample_id == sample_id)].set_index("run")
    full = scene.full.run.name if scene.full else None
    reference = table.loc[full].answer_tokens if full in table.index else None
    answers = []
    for row in rows:
        if row.run.name not in table.index:
            continue
        line = table.loc[row.run.name]
        error = line.error if isinstance(line.error, str) else None  # pandas makes NaN of None
        differs = None if reference is None or row.is_full else first_difference(line.answer_tokens, reference)
        answers.append(
            Answer(
                row=row,
                text=str(line.answer),
                official=_number(line.official),
                repaired=_number(line.repaired),
                budget=_number(line.realised_budget),
                differs_at=None if error else differs,
                error=error,
            )
        )
    return tuple(answers)


def view_of(specimen: ModelView, answers: Sequence[Answer], kept: Sequence[tuple[Row, KeptPositions]]) -> SampleView:
    """Puts together what the page shows of a sample.

    Args:
        specimen: the sample.
        answers: of `answers_of`.
        kept: for each run what its strategy kept, from `lookm.kept`; at least one.

    Raises:
        LookmError: the image tokens cannot be divided among the pictures.
    """
    from lookm.kept import image_spans, token_grid

    is_image = kept[0][1].is_image
    spans = image_spans(is_image, len(specimen.images))
    images, begins = [], {}
    for number, (picture, span) in enumerate(zip(specimen.images, spans, strict=True)):
        rows, columns = token_grid(len(span), picture.width / picture.height)
        images.append(
            {
                "source": _source(picture, number),
                "start": span.start,
                "stop": span.stop,
                "rows": rows,
                "columns": columns,
            }
        )
        begins[span.start] = number
    flow: list[dict[str, Any]] = []
    for position, (text, image) in enumerate(zip(specimen.tokens, is_image.tolist(), strict=True)):
        if position in begins:
            flow.append({"image": begins[position]})
        elif not image:
            flow.append({"text": text, "at": position})
    data = {"flow": flow, "images": images, "kept": [_kept_data(row, positions) for row, positions in kept]}
    return SampleView(specimen.dataset, specimen.sample_id, specimen.task, specimen.truth, tuple(answers), data)


def plain_view(
    answers: Sequence[Answer], asked: SampleRecord, task: str, dataset: str, truth: str, root: Path | None, why_not: str
) -> SampleView:
    """What can be shown of a sample without running the model again.

    Args:
        answers: of `answers_of`.
        asked: the sample's record of any run: question and paths of images.
        task, dataset, truth: of the sample.
        root: the benchmark's folder; None where it is not known any more, which leaves the pictures out.
        why_not: why the model was not run again.
    """
    from benchmarks.milebench.images import open_images

    images: list[dict[str, Any]] = []
    for number, path in enumerate(asked.images):
        try:
            picture = open_images([str(root / path)])[0] if root is not None else None
        except LookmError:
            picture = None
        images.append({"source": _source(picture, number)})
    flow: list[dict[str, Any]] = []
    pieces = asked.question.split(PLACEHOLDER)
    for number, piece in enumerate(pieces):
        flow.append({"text": piece, "at": -1})
        if number < len(pieces) - 1 and number < len(images):
            flow.append({"image": number})
    data = {"flow": flow, "images": images, "kept": []}
    return SampleView(dataset, str(asked.sample_id), task, truth, tuple(answers), data, why_not)


def _source(picture: Image | None, number: int) -> str | None:
    return None if picture is None or number >= _MOST_IMAGES else data_uri(picture)


def data_uri(picture: Image, side: int = _SIDE) -> str:
    """The picture, at most `side` pixels long, as PNG where it is small already and as JPEG otherwise."""
    small = max(picture.size) <= side
    picture = picture.convert("RGB")
    picture.thumbnail((side, side))
    stream = io.BytesIO()
    if small:
        picture.save(stream, "PNG", optimize=True)
    else:
        picture.save(stream, "JPEG", quality=82)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _kept_data(row: Row, kept: KeptPositions) -> dict[str, Any]:
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
    layers = [base64.b64encode(layer.tobytes()).decode() for layer in packed]
    return {"name": row.variant, "heads": heads, "layers": layers}


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)
