"""MileBench as a benchmark that can be run: 29 datasets under one folder, and their variants."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.benchmark import Benchmark
from benchmarks.milebench.annotation import annotation_path, how_to_get
from benchmarks.milebench.taxonomy import ADVERSARIAL_DATASETS, DATASETS
from lookm.errors import LookmError


def milebench_benchmark(
    root: str | os.PathLike[str],
    *,
    adversarial: bool = False,
    combine_image: int | None = None,
    label: str = "MileBench",
) -> Benchmark:
    """MileBench under `root`; nothing is read until a dataset is.

    Args:
        root: folder with one folder per dataset, as the archives extract.
        adversarial: the `-adv` samples, which 26 of the datasets have.
        combine_image: 1 shows a sample's images in one numbered grid, which is made where it is absent.
        label: what tables call it; a variant is named behind it.

    Returns:
        The benchmark; its `prepare` raises `LookmError` when `root` holds none of the datasets. Single datasets may be
        missing: reading one of those says so.

    Raises:
        LookmError: a variant that MileBench does not have.
    """
    if not isinstance(adversarial, bool):
        raise LookmError(f"adversarial must be true or false, not {adversarial!r}")
    if combine_image is not None and (isinstance(combine_image, bool) or combine_image != 1):
        raise LookmError(
            f"combine_image is {combine_image!r}, but MileBench's prompts hold exactly one combined image; "
            "use 1, or null for the images one by one"
        )
    folder = Path(root)
    datasets = ADVERSARIAL_DATASETS if adversarial else DATASETS
    paths = {
        info: annotation_path(folder, info.dataset, combine_image=combine_image, adversarial=adversarial)
        for info in datasets
    }
    missing = tuple(info for info, path in paths.items() if not _is_file(path))

    def prepare() -> None:
        if not os.path.isdir(folder):  # noqa: PTH112 (False, and no exception, for a name that is too long)
            raise LookmError(f"MileBench is not in {folder}, which does not exist: {how_to_get(folder)}")
        if not any(map(_is_file, paths.values())):
            what = f"{len(datasets)} {'adversarial ' if adversarial else ''}datasets"
            raise LookmError(f"{folder} holds none of MileBench's {what}: {how_to_get(folder)}")

    variant = ", adversarial" if adversarial else ", images combined" if combine_image else ""
    return Benchmark(
        name="milebench",
        label=label + variant,
        root=folder,
        datasets=datasets,
        prepare=prepare,
        adversarial=adversarial,
        combine_image=combine_image,
        missing=missing if len(missing) < len(datasets) else (),
    )


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 (False, and no exception, for a name that is too long)
