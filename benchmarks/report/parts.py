"""Which samples of each scene the report shows, and their views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.report.choice import telling_samples
from benchmarks.report.page import Part
from benchmarks.report.rerun import load_scene_model, sample_view
from benchmarks.report.scenes import Scene
from lookm.errors import LookmError

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

NOT_ASKED = "--heat no leaves it out"


def make_parts(scenes: Sequence[Scene], *, samples: str, heat: str) -> list[Part]:
    """One part of the page for each scene.

    Args:
        scenes: the runs.
        samples: how many samples to show of each scene, or their names, `DATASET/ID`, separated by commas.
        heat: "yes", "no" or "auto": whether models are run again to see what was kept.

    Raises:
        LookmError: samples that no scene has.
    """
    names = [] if samples.isdigit() else [name.strip() for name in samples.split(",")]
    wanted = [(name, _named(scenes, name)) for name in names]
    parts = []
    for number, scene in enumerate(scenes):
        budget = scene.budgets[0] if scene.budgets else None
        if names:
            chosen = [pairs[number] for _, pairs in wanted if number in pairs]
        else:
            chosen = telling_samples(scene, budget, int(samples))
        model: Backbone | str = _model(scene, heat) if chosen else NOT_ASKED
        views = [sample_view(scene, budget, dataset, sample_id, model) for dataset, sample_id in chosen]
        parts.append(Part(scene, f"part{number + 1}", budget, views))
    return parts


def _named(scenes: Sequence[Scene], name: str) -> dict[int, tuple[str, str]]:
    """The scenes (by number) that have a sample named `DATASET/ID` or `TASK/ID`."""
    wanted, _, sample_id = name.partition("/")
    found = {}
    for number, scene in enumerate(scenes):
        table = scene.table
        rows = table[((table.dataset == wanted) | (table.task == wanted)) & (table.sample_id == (sample_id or "0"))]
        if len(rows):
            found[number] = (str(rows.dataset.iloc[0]), str(rows.sample_id.iloc[0]))
    if not found:
        raise LookmError(f"no run has a sample {name!r}; give a number of samples, or DATASET/ID as in samples.jsonl")
    return found


def _model(scene: Scene, heat: str) -> Backbone | str:
    """The scene's model, or why it is not run again."""
    if heat == "no":
        return NOT_ASKED
    try:
        return load_scene_model(scene, any_size=heat == "yes")
    except LookmError as error:
        return str(error)
