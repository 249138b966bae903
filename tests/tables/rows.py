"""An experiment without its rows, for tests that make their own."""

from pathlib import Path

from benchmarks.tables.experiments import Experiment
from tests.runner.small_benchmark import small_benchmark

FIGURE = Experiment(
    name="figure5",
    model="random",
    benchmark=small_benchmark(Path("absent")),
    identity={"model": {}, "benchmark": {"name": "small"}},
    rows=(),
    datasets=small_benchmark(Path("absent")).datasets,
    overrides=(),
)
