"""The model of a scene once more, to see what its strategies kept of a sample."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.evaluation.examples import view_sample
from benchmarks.evaluation.provenance import weights_digest
from benchmarks.evaluation.settings import construct
from benchmarks.milebench.dataset import Dataset, read_dataset
from benchmarks.report.scenes import Scene
from benchmarks.report.views import SampleView, answers_of, plain_view, view_of
from lookm.errors import LookmError
from lookm.kept import kept_positions

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

_SMALL = 1 << 30


def load_scene_model(scene: Scene, *, any_size: bool) -> Backbone:
    """Loads the model that a scene's runs were made with, on the CPU or the first GPU.

    Args:
        scene: which runs.
        any_size: also load weights that are not in a local folder of less than 1 GiB.

    Raises:
        LookmError: why not, in one line.
    """
    import torch
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    run = scene.rows[0].run
    fields = {key: value for key, value in run.configuration["model"].items() if key != "name"}
    folder = _folder(fields)
    if not any_size and (folder is None or _bytes_in(folder) > _SMALL):
        raise LookmError("the model has no small weights in a folder here, and was not run again; --heat yes does")
    if folder is not None and run.about.get("weights") not in (None, weights_digest(folder)):
        raise LookmError("the weights on this disk are others than those of the runs")
    return construct(
        fields, device="cuda" if torch.cuda.is_available() else "cpu", dtype=run.configuration.get("dtype", "float32")
    )


def sample_view(
    scene: Scene, budget: tuple[float, float] | None, dataset: str, sample_id: str, model: Backbone | str
) -> SampleView:
    """One sample with the answers of all runs at one budget, and what their strategies keep of it.

    Args:
        scene: which runs.
        budget: α1 and α2.
        dataset, sample_id: which sample.
        model: what encodes the sample once more, or why it is not run again.

    Raises:
        LookmError: the runs have no such sample.
    """
    rows = scene.at(budget)
    table = scene.table[(scene.table.dataset == dataset) & (scene.table.sample_id == sample_id)]
    if table.empty:
        raise LookmError(f"the runs of {scene.label} have no sample {dataset}/{sample_id} in common")
    answers = answers_of(scene, rows, dataset, sample_id)
    why_not, data = model if isinstance(model, str) else "", None
    try:
        data = _data(scene, dataset, sample_id, str(table.digest.iloc[0]))
        if not isinstance(model, str):
            specimen = view_sample(model, data, sample_id)
            known = [(row, row.built) for row in rows if row.built is not None]
            found = kept_positions(model.model, specimen.inputs, [built for _, built in known if built is not None])
            kept = [(row, positions) for (row, _), positions in zip(known, found, strict=True)]
            return view_of(specimen, answers, kept)
    except LookmError as error:
        why_not = why_not or str(error)
    asked = answers[0].row.run.records(dataset)[sample_id]
    truth = str(data.samples[sample_id]["response"]) if data else "unknown: the data are gone"
    root = data.folder.parent if data else None
    return plain_view(answers, asked, str(table.task.iloc[0]), dataset, truth, root, why_not)


def _data(scene: Scene, dataset: str, sample_id: str, digest: str) -> Dataset:
    """The dataset as the runs read it."""
    benchmark = next((row.run.benchmark for row in scene.rows if row.run.benchmark is not None), None)
    info = next((info for info in benchmark.datasets if info.dataset == dataset), None) if benchmark else None
    if benchmark is None or info is None:
        raise LookmError(f"the data of {dataset} are not where the runs found them")
    data = read_dataset(benchmark, info, None)
    if data.digests.get(sample_id) != digest:
        raise LookmError(f"sample {sample_id} of {dataset} is not any more what the runs were asked")
    return data


def _folder(fields: dict[str, object]) -> Path | None:
    """The model's local folder: its `path`, or what its loader's module calls SHIPPED."""
    path = fields.get("path")
    if path is None:
        path = getattr(import_module(str(fields["_target_"]).rpartition(".")[0]), "SHIPPED", None)
    return Path(str(path)) if path is not None and Path(str(path)).is_dir() else None


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
