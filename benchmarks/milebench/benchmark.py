"""MileBench as a benchmark that can be run: 29 datasets under one folder."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.benchmark import Benchmark
from benchmarks.milebench.annotation import HOW_TO_GET
from benchmarks.milebench.taxonomy import DATASETS
from lookm.errors import LookmError


def milebench_benchmark(root: str | os.PathLike[str], *, label: str = "MileBench") -> Benchmark:
    """MileBench under `root`; nothing is read until a dataset is.

    Args:
        root: folder with one folder per dataset, as the archives extract.
        label: what tables call it.

    Returns:
        The benchmark; its `prepare` raises `LookmError` when `root` holds none of the datasets. Single datasets may be
        missing: reading one of those says so.
    """
    folder = Path(root)

    def prepare() -> None:
        if not folder.is_dir():
            raise LookmError(f"MileBench is not in {folder}, which does not exist: {HOW_TO_GET}")
        if not any((folder / info.dataset / f"{info.dataset}.json").is_file() for info in DATASETS):
            raise LookmError(f"{folder} holds none of MileBench's {len(DATASETS)} datasets: {HOW_TO_GET}")

    return Benchmark(name="milebench", label=label, root=folder, datasets=DATASETS, prepare=prepare)
