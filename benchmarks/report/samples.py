"""Samples as the report shows them: which ones, their question, pictures, truth, and all answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.files import read_json
from benchmarks.milebench import PLACEHOLDER
from benchmarks.milebench.images import open_images
from benchmarks.report.groups import Budget, Group, Row
from lookm.answers import first_difference
from lookm.errors import LookmError

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 144
_MOST_IMAGES = 60
_RIGHT = 0.5


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
        dataset, sample_id, task, truth: which, and what is right.
        answers: of all runs at one budget.
        data: for the page's script: `flow` (texts, with the position of their token, and numbers of images, in reading
            order), `images` (data URI, token span, grid) and `kept` (`rerun.kept_data`; empty without a rerun).
        why_not: why it is not shown what was kept; empty where it is.
    """

    dataset: str
    sample_id: str
    task: str
    truth: str
    answers: tuple[Answer, ...]
    data: dict[str, Any]
    why_not: str = ""


def telling_samples(group: Group, budget: Budget, n: int) -> list[tuple[str, str]]:
    """The samples that tell most of the strategies at one budget, each of another dataset.

    Only samples count that the full cache answers right. Those on which strategies with and without the text prior
    differ most come first, by turns won and lost by the prior; without such strategies, those on which all disagree.

    Args:
        n: how many samples, at most as many as there are datasets.

    Returns:
        Pairs of dataset and sample id.
    """
    rows = group.compressing(budget)
    with_prior = {row.run.name for row in rows if getattr(row.built, "text_prior", "off") != "off"}
    without = {row.run.name for row in rows} - with_prior
    frame = group.frame[group.frame.error.isna()]
    full = group.full.run.name if group.full else None
    won: list[tuple[float, int, str, str]] = []
    lost: list[tuple[float, int, str, str]] = []
    for place, ((dataset, sample), lines) in enumerate(frame.groupby(["dataset", "sample_id"], sort=False)):
        scores = dict(zip(lines.run, lines.official, strict=True))
        if full is not None and scores.get(full, 0.0) < _RIGHT:
            continue
        prior, other = ([scores[run] for run in runs if run in scores] for runs in (with_prior, without))
        if prior and other:
            contrast = fmean(prior) - fmean(other)
        elif prior or other:
            contrast = 0.5 - abs(fmean(prior or other) - 0.5)
        else:
            continue
        (won if contrast > 0 else lost).append((-abs(contrast), place, str(dataset), str(sample)))
    chosen: dict[str, str] = {}
    for pair in zip_longest(sorted(won), sorted(lost)):
        for entry in pair:
            if entry is not None:
                chosen.setdefault(entry[2], entry[3])
    return list(chosen.items())[:n]


def named_samples(groups: Sequence[Group], name: str) -> dict[int, tuple[str, str]]:
    """The groups (by number) that have a sample named `DATASET/ID` or `TASK/ID`, with its dataset and id.

    Raises:
        LookmError: none has.
    """
    asked, _, sample_id = name.partition("/")
    chosen = {}
    for number, group in enumerate(groups):
        frame = group.frame
        rows = frame[((frame.dataset == asked) | (frame.task == asked)) & (frame.sample_id == (sample_id or "0"))]
        if len(rows):
            chosen[number] = (str(rows.dataset.iloc[0]), str(rows.sample_id.iloc[0]))
    if not chosen:
        raise LookmError(f"no run has a sample {name!r}; give a number of samples, or DATASET/ID as in samples.jsonl")
    return chosen


def answers_of(group: Group, rows: Sequence[Row], dataset: str, sample_id: str) -> tuple[Answer, ...]:
    """The runs' answers to one sample; runs without it are left out.

    Raises:
        LookmError: no run has it.
    """
    frame = group.frame[(group.frame.dataset == dataset) & (group.frame.sample_id == sample_id)].set_index("run")
    if frame.empty:
        raise LookmError(f"the runs of {group.label} have no sample {dataset}/{sample_id} in common")
    full = group.full.run.name if group.full else None
    reference: Any = frame.loc[full].answer_tokens if full in frame.index else None
    answers = []
    for row in rows:
        if row.run.name not in frame.index:
            continue
        line: Any = frame.loc[row.run.name]
        differs = None if reference is None or row.is_full else first_difference(line.answer_tokens, reference)
        answers.append(
            Answer(
                row=row,
                text=str(line.answer),
                official=_number(line.official),
                repaired=_number(line.repaired),
                budget=_number(line.realised_budget),
                differs_at=None if line.error else differs,
                error=line.error,
            )
        )
    return tuple(answers)


def truth_of(rows: Sequence[Row], dataset: str, sample_id: str) -> str:
    """The right answer, as any of the runs has it in its `pred.json`."""
    for row in rows:
        for prediction in read_json(row.run.path / dataset / "pred.json") or []:
            if isinstance(prediction, dict) and str(prediction.get("sample_id")) == sample_id:
                return str(prediction.get("gt_response"))
    return "unknown: no run has written its results yet"


def plain_view(group: Group, answers: Sequence[Answer], dataset: str, sample_id: str, root: Path | None) -> SampleView:
    """What can be shown of a sample without running the model again.

    Args:
        root: the benchmark's folder; None where it is not known any more, which leaves the pictures out.
    """
    record = answers[0].row.run.records(dataset)[sample_id]
    images = []
    for number, path in enumerate(record.images):
        try:
            picture = open_images([str(root / path)])[0] if root is not None else None
        except LookmError:
            picture = None
        images.append({"source": image_source(picture, number)})
    flow: list[dict[str, Any]] = []
    pieces = record.question.split(PLACEHOLDER)
    for number, piece in enumerate(pieces):
        flow.append({"text": piece, "at": -1})
        if number < len(pieces) - 1 and number < len(images):
            flow.append({"image": number})
    data = {"flow": flow, "images": images, "kept": []}
    truth = truth_of([answer.row for answer in answers], dataset, sample_id)
    return SampleView(dataset, sample_id, record.task, truth, tuple(answers), data)


def image_source(picture: Image | None, number: int) -> str | None:
    """A picture as data URI; None where it is gone, or one of too many for a page."""
    return None if picture is None or number >= _MOST_IMAGES else data_uri(picture)


def data_uri(picture: Image) -> str:
    """The picture, at most `_SIDE` pixels long, as PNG where it is small already and as JPEG otherwise."""
    small = max(picture.size) <= _SIDE
    picture = picture.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    if small:
        picture.save(stream, "PNG", optimize=True)
    else:
        picture.save(stream, "JPEG", quality=82)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)
