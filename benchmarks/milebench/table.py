"""A benchmark's folder as Hugging Face `datasets.Dataset`s: typed, cached, memory-mapped, pictures decoded lazily.

Selecting, mapping, filtering and sharding are the library's:

    table = read_table(Path("data/MileBench"), "TQA")
    table.shard(4, 0).filter(lambda row: row["n_images"] < 6)[0]["images"][0].size
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.download.hub import bars_on_terminals
from benchmarks.milebench.annotation import annotation_path
from benchmarks.milebench.combined import read_variant

if TYPE_CHECKING:
    from datasets import Dataset, Features

FORMAT = 1  # of the columns; another one is another cache entry


def table_features() -> Features:
    """The columns, typed.

    `sample_id`, `instruction`, `context`, `response` and `image_quantity_level` are texts; `choices` a list of texts,
    null where the sample has none; `images_path` as in the annotation, `n_images` their number; `images` are the
    pictures as PIL images, or, in a table of combined images, the grids. A picture's file is opened when its cell is
    read.
    """
    from datasets import Features, Image, List, Value

    text = Value("string")
    return Features(
        {
            "sample_id": text,
            "instruction": text,
            "context": text,
            "choices": List(text),
            "response": text,
            "image_quantity_level": text,
            "images_path": List(text),
            "n_images": Value("int32"),
            "images": List(Image()),
        }
    )


def read_table(
    root: Path,
    dataset: str,
    *,
    combine_image: int | None = None,
    adversarial: bool = False,
    cache_dir: Path | None = None,
) -> Dataset:
    """One dataset as a table, a row per sample, in the annotation's order.

    The rows are written once, as Arrow, into the library's cache, and mapped from there. Their fingerprint is made from
    the annotation's content and the folder, so that another annotation is another table, and what `map` and `filter`
    made of an unchanged one is found again.

    Args:
        root: MileBench's folder, or that of another benchmark in its layout.
        combine_image: N for the samples with N combined images; none is made here (see `combined.write_grid`).
        cache_dir: where the Arrow files go; None is the library's own place (`HF_DATASETS_CACHE`).

    Raises:
        LookmError: as `read_annotation`.
    """
    import datasets
    from datasets import Dataset

    annotation = read_variant(root, dataset, combine_image=combine_image, adversarial=adversarial)
    folder = (Path(root) / dataset).resolve()
    path = annotation_path(root, dataset, combine_image=combine_image, adversarial=adversarial)
    path = path if path.is_file() else annotation_path(root, dataset)
    summary = hashlib.sha256(path.read_bytes())
    summary.update(f"\0{folder}\0{path.name}\0{combine_image}\0{FORMAT}".encode())
    with bars_on_terminals(datasets):
        table = Dataset.from_generator(
            table_rows,
            features=table_features(),
            cache_dir=None if cache_dir is None else str(cache_dir),
            gen_kwargs={"annotation": annotation, "folder": str(folder), "combine_image": combine_image},
            fingerprint=summary.hexdigest()[:16],
        )
    assert isinstance(table, Dataset)
    return table


def table_rows(annotation: Mapping[str, Any], folder: str, combine_image: int | None) -> Iterator[dict[str, Any]]:
    """The rows of a dataset's table, as `table_features` types them; pictures by their paths."""
    instructions = annotation["meta_data"]["task_instruction"]
    for sample in annotation["data"]:
        instance = sample["task_instance"]
        field = "images_path" if combine_image is None else f"combined_{combine_image}_images"
        pictures = "images" if combine_image is None else field
        yield {
            "sample_id": str(sample["sample_id"]),
            "instruction": instructions[sample["task_instruction_id"]],
            "context": instance["context"],
            "choices": instance.get("choice_list"),
            "response": str(sample["response"]),
            "image_quantity_level": str(sample.get("image_quantity_level", "")),
            "images_path": instance["images_path"],
            "n_images": len(instance["images_path"]),
            "images": [os.path.join(folder, pictures, name) for name in instance[field]],  # noqa: PTH118
        }
