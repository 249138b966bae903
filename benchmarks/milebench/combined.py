"""Combined images: a sample's pictures in one numbered grid, for models that take one picture.

Source: MileBench (arXiv 2404.18532) and the behaviour of its `data/combine_images.py`, kept but for the caption's font:
that program needs Arial Unicode, which cannot be shipped, and Pillow's own font is used instead. Grids that are on disk
(the archives bring those of N = 1) are never made again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.files import replacing, writing
from benchmarks.milebench.annotation import annotation_path, read_annotation, read_annotation_file
from benchmarks.milebench.images import open_image
from lookm.errors import LookmError

if TYPE_CHECKING:
    from PIL.Image import Image

CELL = 800  # pixels, width and height of one picture in a grid
FONT_SIZE = 32  # pixels
COMBINED = "combined_1_images"
"""The field of the annotation and the folder; MileBench's 1 is the number of grids."""
_PADDING = 12  # pixels around a caption; 10 more above it


def read_variant(
    root: Path, dataset: str, *, combine_image: int | None = None, adversarial: bool = False
) -> dict[str, Any]:
    """Reads a dataset's annotation, as `read_annotation`; one without combined images is given their names.

    Args:
        combine_image: N for combined images. Where samples name none for N = 1, theirs is called as MileBench calls it,
            `<sample_id>-0.jpg`; `write_grid` makes it.

    Raises:
        LookmError: as `read_annotation`.
    """
    path = annotation_path(root, dataset, combine_image=combine_image, adversarial=adversarial)
    if combine_image != 1:
        return read_annotation(root, dataset, combine_image=combine_image, adversarial=adversarial)
    annotation = read_annotation(root, dataset)
    instances = {sample["sample_id"]: sample["task_instance"] for sample in annotation["data"]}
    if all(COMBINED in instance for instance in instances.values()):
        return read_annotation_file(path, combine_image=1)
    for sample_id, instance in instances.items():
        instance.setdefault(COMBINED, [f"{sample_id}-0.jpg"] if instance["images_path"] else [])
    return annotation


def write_grid(folder: Path, sample: Mapping[str, Any]) -> None:
    """Makes the combined image of a sample, unless it is on disk.

    Args:
        folder: the dataset's folder; pictures are read from `images`, grids written into `combined_1_images`.
        sample: one entry of what `read_variant` returned for N = 1.

    Raises:
        LookmError: a picture cannot be read, or the grid cannot be written.
    """
    instance = sample["task_instance"]
    paths = [folder / COMBINED / name for name in instance[COMBINED]]
    if len(paths) == 1 and instance["images_path"] and not paths[0].is_file():
        grid = combine([folder / "images" / path for path in instance["images_path"]])
        with writing(paths[0], "benchmark.root"), replacing(paths[0]) as temporary:
            grid.save(temporary, format="JPEG")


def combine(paths: Sequence[Path]) -> Image:
    """Lays pictures out row by row in the squarest grid that holds them, each with "Image k" below.

    Args:
        paths: the pictures, at least one; each is stretched to CELL × CELL pixels.

    Returns:
        RGB, ⌈√n⌉ cells wide and as many rows high as are needed; cells that stay empty are black.

    Raises:
        LookmError: a picture is missing or cannot be read.
    """
    from PIL import Image

    columns = math.ceil(math.sqrt(len(paths)))
    grid = Image.new("RGB", (columns * CELL, math.ceil(len(paths) / columns) * CELL))
    for place, path in enumerate(paths):
        try:
            cell = open_image(path, size=(CELL, CELL))
        except LookmError as error:
            raise LookmError(f"{error}, so it cannot be combined") from None
        _caption(cell, f"Image {place + 1}")
        grid.paste(cell, (place % columns * CELL, place // columns * CELL))
    return grid


def _caption(cell: Image, text: str) -> None:
    """Writes white on a black box, centred at the lower edge of the cell."""
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    draw = ImageDraw.Draw(cell)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left, bottom - top
    x, y = (CELL - width) // 2, CELL - height
    draw.rectangle((x - _PADDING, y - _PADDING - 10, x + width + _PADDING, y + height + _PADDING), fill="black")
    draw.text((x, y), text, fill="white", font=font)
