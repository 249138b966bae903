"""An experiment without its rows, for tests that make their own."""

from pathlib import Path

from benchmarks.tables.experiment import Experiment
from tests.runner.small_benchmark import small_benchmark

FIGURE = Experiment(
    name="figure5",
    model="random",
    model_config={},
    benchmark=small_benchmark(Path("absent")),
    benchmark_config={},
    rows=(),
    datasets=small_benchmark(Path("absent")).datasets,
    overrides=(),
)
