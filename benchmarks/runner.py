"""One run: every selected sample that has no answer yet is asked, and the run's files are made from the answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.asking import ask
from benchmarks.preparation import (
    Dataset,
    Prepared,
    batches,
    one_line,
    prepare_prompts,
    read_datasets,
)
from benchmarks.progress import Progress
from benchmarks.provenance import git_state, hardware, versions, weights_digest
from benchmarks.records import SampleRecord
from benchmarks.results import read_summary, write_results
from benchmarks.reuse import Reuse
from benchmarks.settings import Settings, construct
from benchmarks.store import AFRESH, RunFolder
from benchmarks.summary import Summary
from lookm.errors import LookmError

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

Loader = Callable[[Settings], "Backbone"]


@dataclass(frozen=True)
class Outcome:
    """What a call of `run` did.

    Attributes:
        summary: scores and costs of the selected samples, per task.
        computed: samples asked by this call; the others were there already.
        failed: selected samples without an answer.
    """

    summary: Summary
    computed: int
    failed: int


def run(settings: Settings, *, load: Loader | None = None, reuse: Reuse | None = None) -> Outcome:
    """Computes what is missing of a run, writes its files and sums it up.

    The model is only loaded if a sample has to be asked. Every finished sample is on disk before the next batch
    begins, so that an interrupted run loses no more than a batch.

    Args:
        settings: checked settings.
        load: how to get the model; by default the loader named by the settings, which keeps the last one in memory.
        reuse: prompts and inputs shared with other runs of the same model; by default nothing is kept.

    Raises:
        LookmError: no data, no weights, or a run folder that was made from something else.
    """
    folder, datasets, origin = open_run(settings)
    pending = {dataset.info.dataset: _pending(settings, folder, dataset) for dataset in datasets}
    computed = sum(map(len, pending.values()))
    if computed:
        backbone = (load or load_backbone)(settings)
        if settings.overwrite:
            folder.clear()  # not before the model is there
        _describe(settings, folder, backbone, origin)
        with folder.session(
            resolved=settings.resolved, versions=versions(), git=git_state(), hardware=hardware(settings.device)
        ):
            _ask_all(settings, folder, datasets, pending, backbone, reuse or Reuse())
            write_results(settings, folder, datasets)
    else:
        write_results(settings, folder, datasets)
    summary = read_summary(settings, folder, datasets)
    return Outcome(summary, computed, summary.mean.failed)


def open_run(settings: Settings) -> tuple[RunFolder, list[Dataset], dict[str, Any]]:
    """Gets a run's data ready and checks that its folder, if there is one, was made from the same things.

    Returns:
        The folder, the selected datasets, and what the run is made from, as `run.json` holds it.

    Raises:
        LookmError: no data, broken data, or a folder made from something else.
    """
    settings.benchmark.prepare()
    datasets = read_datasets(settings)
    folder = RunFolder(settings.folder)
    origin = {
        "configuration": settings.identity,
        "weights": _weights(settings),
        "data": {dataset.info.dataset: dataset.data for dataset in datasets},
    }
    if not settings.overwrite:
        folder.check(**origin)
        for dataset in datasets:
            _pending(settings, folder, dataset)
    return folder, datasets, origin


def load_backbone(settings: Settings) -> Backbone:
    """Loads the model; asked for the same one again, hands out the one in memory.

    Raises:
        LookmError: weights missing or not fitting.
    """
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # it would fill a log file with one endless line
    key = repr((settings.model_config, settings.device, settings.dtype))
    if key not in _loaded:
        _loaded.clear()  # before loading: two large models would not fit
        _loaded[key] = construct(settings.model_config, device=settings.device, dtype=settings.dtype)
    return _loaded[key]


_loaded: dict[str, Backbone] = {}


def _weights(settings: Settings) -> str | None:
    """Fingerprint of the model's folder; None where it is in no local folder before it is loaded.

    The folder is the model's `path`, or what its loader's module calls SHIPPED.
    """
    path = settings.model_config.get("path")
    if path is None:
        module = import_module(str(settings.model_config["_target_"]).rpartition(".")[0])
        path = getattr(module, "SHIPPED", None)
    return weights_digest(Path(path)) if path is not None and Path(path).is_dir() else None


def _pending(settings: Settings, folder: RunFolder, dataset: Dataset) -> list[str]:
    """Ids of the selected samples that are to be asked: those without an answer, or all to start afresh.

    Raises:
        LookmError: a sample was answered when it, or one of its images, was another.
    """
    records = {} if settings.overwrite else folder.records(dataset.info.dataset)
    pending = []
    for name, digest in dataset.digests.items():
        record = records.get(name)
        if record is None or not record.answered:
            pending.append(name)
        elif record.digest != digest:
            raise LookmError(
                f"{folder.path} was computed with other data (sample {name} of {dataset.info.dataset} or its images "
                f"have changed); {AFRESH}"
            )
    return pending


def _describe(settings: Settings, folder: RunFolder, backbone: Backbone, origin: Mapping[str, Any]) -> None:
    """Writes into `run.json` what the run is made from."""
    strategy = settings.strategy
    folder.describe(
        name=settings.run,
        labels={"model": backbone.label, "benchmark": settings.benchmark.label, "strategy": strategy.name},
        nominal_budget=strategy.nominal_budget,
        generation={"do_sample": False, "min_new_tokens": 1, "max_new_tokens": backbone.max_new_tokens},
        **{name: value for name, value in origin.items() if value is not None},
    )


def _ask_all(
    settings: Settings,
    folder: RunFolder,
    datasets: Sequence[Dataset],
    pending: Mapping[str, list[str]],
    backbone: Backbone,
    reuse: Reuse,
) -> None:
    """Asks the pending samples of all datasets."""
    import torch

    reuse.serve(backbone)
    torch.manual_seed(settings.seed)
    with Progress(sum(map(len, pending.values())), settings.run) as progress:
        for dataset in datasets:
            name = dataset.info.dataset
            if pending[name]:
                _ask_dataset(settings, folder, dataset, pending[name], backbone, reuse, progress)
                progress.finish(name)


def _ask_dataset(
    settings: Settings,
    folder: RunFolder,
    dataset: Dataset,
    names: Sequence[str],
    backbone: Backbone,
    reuse: Reuse,
    progress: Progress,
) -> None:
    """Asks the named samples of one dataset, appending each batch as it finishes."""
    name = dataset.info.dataset
    prepared, failures = _prepare(dataset, names, backbone, reuse)
    folder.append(name, failures)
    progress.advance(len(failures), name)
    for batch in batches(prepared, backbone.batch_size):
        root = settings.benchmark.root
        folder.append(name, ask(backbone, settings.strategy, dataset, batch, root=root, reuse=reuse))
        progress.advance(len(batch), name)


def _prepare(
    dataset: Dataset, names: Sequence[str], backbone: Backbone, reuse: Reuse
) -> tuple[list[Prepared], list[SampleRecord]]:
    """Prompts of the named samples, and records of those that have none."""
    key = ("prompts", dataset.info.dataset, *(dataset.digests[name] for name in names))
    found = reuse.find(key)
    if found is not None:
        return found, []
    prepared: list[Prepared] = []
    failures: list[SampleRecord] = []
    for item in prepare_prompts(
        dataset,
        names,
        tokenizer=backbone.tokenizer,
        max_context_len=backbone.max_context_len,
        n_tokens_per_image=backbone.n_tokens_per_image,
    ):
        if isinstance(item, Prepared):
            prepared.append(item)
        else:
            failed, error = item
            sample_id, digest = dataset.samples[failed]["sample_id"], dataset.digests[failed]
            failures.append(SampleRecord(sample_id=sample_id, digest=digest, error=one_line(error)))
    if not failures:
        reuse.keep(key, prepared, sum(len(sample.prompt.context) for sample in prepared))
    return prepared, failures
