"""Weights & Biases, offline unless asked: configuration, scores, costs, samples with pictures, and the run's folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.loggers import GROUP_VARIABLE, Logger
from benchmarks.evaluation.loggers.content import (
    LoggedSample,
    dataset_numbers,
    image_root,
    logged_samples,
    run_numbers,
)
from benchmarks.milebench.images import open_image
from lookm.errors import LookmError, check_one_of, check_whole_number, message_of

if TYPE_CHECKING:
    from benchmarks.evaluation.store import RunFolder

MODES = ("offline", "online")
COLUMNS = (
    *("dataset", "task", "sample", "question", "truth", "answer", "official", "repaired", "prompt tokens"),
    *("image tokens", "realised budget", "kept bytes", "decode ms/token", "error"),
)


class WandbLogger(Logger):
    """One wandb run per run folder, whose id is the folder's, so that a resumed run goes on where it was.

    Args:
        mode: "offline" writes files below `dir` for `wandb sync`; "online" sends them as they are made.
        entity: the wandb team or user; None for the account's own.
        group: the group of runs; None takes the sweep's, else model and benchmark.
        dir: `<dir>/wandb` holds what wandb writes.
        samples: rows of the table of samples, per dataset; 0 for no table.
        images: first images of a sample in the table.
        image_size: longest side of these, in pixels.
        artifact: whether the run's folder is logged as an artifact.
    """

    name = "wandb"

    def __init__(
        self,
        *,
        mode: str = "offline",
        project: str = "lookm",
        entity: str | None = None,
        group: str | None = None,
        dir: str = "results",
        samples: int = 20,
        images: int = 2,
        image_size: int = 128,
        artifact: bool = True,
    ) -> None:
        check_one_of("logger.mode", mode, MODES)
        for name, value in (("samples", samples), ("images", images), ("image_size", image_size)):
            check_whole_number(f"logger.{name}", value, 1 if name == "image_size" else 0)
        self._mode, self._project, self._entity, self._group = mode, project, entity, group
        self._dir, self._artifact = Path(dir), artifact
        self._samples, self._images, self._image_size = samples, images, image_size
        self._run: Any = None

    def started(self, folder: RunFolder) -> None:
        import wandb

        names = [str(folder.configuration[group]["name"]) for group in ("model", "benchmark", "strategy")]
        self._dir.mkdir(parents=True, exist_ok=True)
        # Artifacts are copied before they are sent; by default below the home folder, which may be small or read-only.
        os.environ.setdefault("WANDB_DATA_DIR", str((self._dir / "wandb").resolve()))
        self._run = wandb.init(
            project=self._project,
            entity=self._entity,
            group=self._group or os.environ.get(GROUP_VARIABLE) or "-".join(names[:2]),
            job_type="run",
            id=hashlib.sha256(str(folder.path.resolve()).encode()).hexdigest()[:16],
            resume="allow" if self._mode == "online" else None,
            name=folder.name,
            config={**folder.resolved, "run": folder.name, "identity": dict(folder.configuration)},
            tags=names,
            dir=str(self._dir),
            mode="online" if self._mode == "online" else "offline",
            reinit="create_new",  # runs of a sweep are told of side by side
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )

    def dataset_done(self, folder: RunFolder, dataset: str) -> None:
        self._run.log(dataset_numbers(folder, dataset))

    def finished(self, folder: RunFolder) -> None:
        values = run_numbers(folder)
        for dataset in folder.datasets:
            values |= dataset_numbers(folder, dataset)
        self._run.summary.update(values)
        if self._samples:
            self._run.log({"samples": self._table(folder)})
        if self._artifact:
            self._log_folder(folder)
        self._run.finish()

    def failed(self, error: BaseException) -> None:
        self._run.summary["error"] = message_of(error)
        self._run.finish(exit_code=1)

    def _table(self, folder: RunFolder) -> Any:
        import wandb

        root, columns = image_root(folder), [f"image {number + 1}" for number in range(self._images)]
        table = wandb.Table(columns=[*COLUMNS, *columns])
        for sample in logged_samples(folder, self._samples):
            images = [] if root is None else [self._image(root / path) for path in sample.record.images[: self._images]]
            table.add_data(*_cells(sample), *images, *[None] * (self._images - len(images)))
        return table

    def _image(self, path: Path) -> Any:
        import wandb

        try:
            image = open_image(path)
        except LookmError:
            return None
        image.thumbnail((self._image_size, self._image_size))
        return wandb.Image(image)

    def _log_folder(self, folder: RunFolder) -> None:
        import wandb

        artifact = wandb.Artifact(
            name=folder.name,
            type="results",
            metadata={key: folder.about.get(key) for key in ("configuration", "weights", "data", "labels")},
        )
        for file in sorted(path for path in folder.path.rglob("*") if path.is_file()):
            artifact.add_file(str(file), name=file.relative_to(folder.path).as_posix())
        self._run.log_artifact(artifact)


def _cells(sample: LoggedSample) -> list[Any]:
    record = sample.record
    scores = record.scores or {}
    return [
        *(sample.dataset, record.task, str(record.sample_id), record.question, sample.truth, record.answer),
        *(scores.get("official"), scores.get("repaired"), record.prompt_tokens, record.image_tokens),
        *(record.realised_budget, record.kept_bytes, (record.times or {}).get("decode_ms_per_token"), record.error),
    ]
