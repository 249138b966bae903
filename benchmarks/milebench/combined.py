"""Combined images: a sample's pictures in N numbered grids, for models that take one picture.

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
_PADDING = 12  # pixels around a caption; 10 more above it


def read_variant(
    root: Path, dataset: str, *, combine_image: int | None = None, adversarial: bool = False
) -> dict[str, Any]:
    """Reads a dataset's annotation, as `read_annotation`; one without combined images is given their names.

    Args:
        root: MileBench's folder.
        dataset: the dataset's name.
        combine_image: N for combined images. Where neither `<Dataset>_combined_<N>.json` nor the samples name any,
            they are called as MileBench calls them, `<sample_id>-<k>.jpg`; `write_grids` makes them.
        adversarial: the `-adv` samples.

    Raises:
        LookmError: as `read_annotation`.
    """
    path = annotation_path(root, dataset, combine_image=combine_image, adversarial=adversarial)
    if combine_image is None or (combine_image != 1 and path.is_file()):
        return read_annotation(root, dataset, combine_image=combine_image, adversarial=adversarial)
    annotation = read_annotation(root, dataset)
    field = f"combined_{combine_image}_images"
    if all(field in sample["task_instance"] for sample in annotation["data"]):
        return read_annotation_file(annotation_path(root, dataset), combine_image=combine_image)
    for sample in annotation["data"]:
        instance = sample["task_instance"]
        groups = grid_groups(len(instance["images_path"]), combine_image)
        instance.setdefault(field, [f"{sample['sample_id']}-{place}.jpg" for place in range(len(groups))])
    return annotation


def grid_groups(n_images: int, combine_image: int) -> list[range]:
    """Which images go into which grid: runs of ⌈n / N⌉ neighbours, so that N grids or fewer hold them all."""
    size = max(1, math.ceil(n_images / combine_image))
    return [range(start, min(start + size, n_images)) for start in range(0, n_images, size)]


def write_grids(folder: Path, sample: Mapping[str, Any], combine_image: int) -> list[Path]:
    """Makes the combined images of a sample that are not on disk.

    Args:
        folder: the dataset's folder; pictures are read from `images`, grids written into `combined_<N>_images`.
        sample: one entry of what `read_variant` returned for the same N.
        combine_image: N.

    Returns:
        The files written.

    Raises:
        LookmError: a picture cannot be read, or the grid cannot be written.
    """
    field = f"combined_{combine_image}_images"
    instance = sample["task_instance"]
    groups = grid_groups(len(instance["images_path"]), combine_image)
    names = instance[field]
    written: list[Path] = []
    for name, group in zip(names, groups, strict=False):
        path = folder / field / name
        if len(names) == len(groups) and not path.is_file():
            sources = [folder / "images" / instance["images_path"][place] for place in group]
            grid = combine(sources, first=group.start + 1)
            with writing(path, "benchmark.root"), replacing(path) as temporary:
                grid.save(temporary, format="JPEG")
            written.append(path)
    return written


def combine(paths: Sequence[Path], *, first: int = 1) -> Image:
    """Lays pictures out row by row in the squarest grid that holds them, each with "Image k" below.

    Args:
        paths: the pictures, at least one; each is stretched to CELL × CELL pixels.
        first: number of the first caption.

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
        _caption(cell, f"Image {first + place}")
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
