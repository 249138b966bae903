"""TensorBoard event files: scores and costs as scalars, configuration and samples as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.evaluation.loggers import Logger
from benchmarks.evaluation.loggers.content import dataset_numbers, logged_samples, run_numbers
from lookm.errors import check_whole_number

if TYPE_CHECKING:
    from benchmarks.evaluation.store import RunFolder


class TensorboardLogger(Logger):
    """`<dir>/<run>/events…`; a sweep's runs lie side by side, so that `tensorboard --logdir <dir>` shows them together.

    Args:
        dir: folder of all runs.
        samples: answers written as text, per dataset.
    """

    name = "tensorboard"

    def __init__(self, *, dir: str = "results/tensorboard", samples: int = 5) -> None:
        check_whole_number("logger.samples", samples, 0)
        self._dir, self._samples = Path(dir), samples
        self._writer: Any = None

    def started(self, folder: RunFolder) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._dir / folder.name))
        self._writer.add_text("configuration", _indented(yaml.safe_dump(folder.resolved, sort_keys=False)))

    def dataset_done(self, folder: RunFolder, dataset: str) -> None:
        self._add(dataset_numbers(folder, dataset))
        self._writer.flush()

    def finished(self, folder: RunFolder) -> None:
        values = run_numbers(folder)
        self._add(values)
        lines = [f"{name}: {value:.6g}" for name, value in values.items()]
        self._writer.add_text("table", _indented("\n".join(lines)))
        for sample in logged_samples(folder, self._samples):
            record = sample.record
            lines = [record.question, f"truth: {sample.truth}", f"answer: {record.answer or record.error}"]
            self._writer.add_text(f"{sample.dataset}/{record.sample_id}", _indented("\n".join(lines)))
        self._writer.close()

    def failed(self, error: BaseException) -> None:
        self._writer.add_text("error", _indented(str(error) or type(error).__name__))
        self._writer.close()

    def _add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value)


def _indented(text: str) -> str:
    """Text that TensorBoard's Markdown leaves as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
