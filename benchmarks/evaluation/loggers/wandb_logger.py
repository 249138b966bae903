"""Weights & Biases, offline unless asked: configuration, scores, costs, samples with pictures, and the run's folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.loggers.content import LoggedSample, dataset_numbers, logged_samples, summary_numbers
from benchmarks.evaluation.loggers.logger import GROUP_VARIABLE, Logger
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.evaluation.settings import Settings
    from benchmarks.evaluation.store import RunFolder
    from benchmarks.evaluation.summary import Summary

MODES = ("offline", "online")
COLUMNS = (
    *("dataset", "task", "sample", "question", "truth", "answer", "official", "repaired", "prompt tokens"),
    *("image tokens", "realised budget", "kept bytes", "decode ms/token", "error"),
)


class WandbLogger(Logger):
    """One wandb run per run folder, whose id is the folder's, so that a resumed run goes on where it was.

    Args:
        mode: "offline" writes files below `dir` for `wandb sync`; "online" sends them as they are made.
        project: the wandb project.
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
        if mode not in MODES:
            raise LookmError(f"unknown logger.mode {mode!r}; choose one of {', '.join(MODES)}")
        for name, value in (("samples", samples), ("images", images), ("image_size", image_size)):
            least = 1 if name == "image_size" else 0
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise LookmError(f"logger.{name} must be a whole number of at least {least}, not {value!r}")
        self._mode, self._project, self._entity, self._group = mode, project, entity, group
        self._dir, self._artifact = Path(dir), artifact
        self._samples, self._images, self._image_size = samples, images, image_size
        self._settings: Settings | None = None
        self._run: Any = None

    def started(self, settings: Settings, folder: RunFolder) -> None:
        import wandb

        self._dir.mkdir(parents=True, exist_ok=True)
        # Artifacts are copied before they are sent; by default below the home folder, which may be small or read-only.
        os.environ.setdefault("WANDB_DATA_DIR", str((self._dir / "wandb").resolve()))
        self._settings = settings
        self._run = wandb.init(
            project=self._project,
            entity=self._entity,
            group=self._group or os.environ.get(GROUP_VARIABLE) or f"{settings.model}-{settings.benchmark.name}",
            job_type="run",
            id=hashlib.sha256(str(folder.path.resolve()).encode()).hexdigest()[:16],
            resume="allow" if self._mode == "online" else None,
            name=settings.run,
            config={**settings.resolved, "run": settings.run, "identity": settings.identity},
            tags=[settings.model, settings.benchmark.name, settings.strategy.name],
            dir=str(self._dir),
            mode="online" if self._mode == "online" else "offline",
            reinit="create_new",  # runs of a sweep are told of side by side
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )

    def dataset_done(self, settings: Settings, folder: RunFolder, dataset: str) -> None:
        self._run.log(dataset_numbers(settings, dataset))

    def finished(self, summary: Summary, folder: RunFolder) -> None:
        found = summary_numbers(summary)
        for info in summary.settings.datasets:
            found |= dataset_numbers(summary.settings, info.dataset)
        self._run.summary.update(found)
        if self._samples:
            self._run.log({"samples": self._table(summary.settings, folder)})
        if self._artifact:
            self._log_folder(summary, folder)
        self._run.finish()

    def failed(self, error: BaseException) -> None:
        self._run.summary["error"] = " ".join(str(error).split()) or type(error).__name__
        self._run.finish(exit_code=1)

    def _table(self, settings: Settings, folder: RunFolder) -> Any:
        import wandb

        pictures = [f"image {number + 1}" for number in range(self._images)]
        table = wandb.Table(columns=[*COLUMNS, *pictures])
        for sample in logged_samples(settings, folder, self._samples):
            shown = [self._picture(settings.benchmark.root / path) for path in sample.record.images[: self._images]]
            table.add_data(*_cells(sample), *shown, *[None] * (self._images - len(shown)))
        return table

    def _picture(self, path: Path) -> Any:
        import wandb
        from PIL import Image

        try:
            with Image.open(path) as file:
                picture = file.convert("RGB")
        except OSError:
            return None
        picture.thumbnail((self._image_size, self._image_size))
        return wandb.Image(picture)

    def _log_folder(self, summary: Summary, folder: RunFolder) -> None:
        import wandb

        artifact = wandb.Artifact(
            name=summary.settings.run,
            type="results",
            metadata={key: folder.about.get(key) for key in ("configuration", "weights", "data", "labels")},
        )
        for file in sorted(path for path in folder.path.rglob("*") if path.is_file()):
            artifact.add_file(str(file), name=file.relative_to(folder.path).as_posix())
        self._run.log_artifact(artifact)


def _cells(sample: LoggedSample) -> list[Any]:
    record = sample.record
    return [
        *(sample.dataset, sample.task, str(record.sample_id), record.question, sample.truth, record.answer),
        *(sample.scores.get("official"), sample.scores.get("repaired"), record.prompt_tokens, record.image_tokens),
        *(record.realised_budget, record.kept_bytes, (record.times or {}).get("decode_ms_per_token"), record.error),
    ]
