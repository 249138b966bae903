"""Where a run's results are sent besides its folder: Weights & Biases, TensorBoard, or nowhere."""

from benchmarks.evaluation.loggers.logger import Logger, name_group, open_logger

__all__ = ["Logger", "name_group", "open_logger"]
