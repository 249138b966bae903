"""Images of a benchmark, read completely and as 8-bit RGB."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lookm.errors import LookmError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""What a file may be, whatever its name says. MileBench has JPEG and PNG; formats that Pillow hands to other programs,
such as EPS to Ghostscript, are not among them."""
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, SyntaxError, ArithmeticError)
_NAME = 60  # characters of a file's name in a message


def open_images(paths: Sequence[str | Path]) -> list[Image]:
    """Reads images as RGB.

    Raises:
        LookmError: an image that is missing or cannot be read: which, and why.
    """
    return [open_image(Path(path)) for path in paths]


def open_image(path: Path, *, size: tuple[int, int] | None = None) -> Image:
    """Reads one image as RGB (see `as_rgb`).

    Args:
        size: width and height to resize it to (LANCZOS), in its own mode, before it becomes RGB.

    Raises:
        LookmError: the file is missing, no regular file, of another format than FORMATS, or broken.
    """
    from PIL import Image, UnidentifiedImageError

    name = path.name if len(path.name) <= _NAME else f"{path.name[:_NAME]}…"
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
            raise LookmError("it is no regular file")
        with Image.open(path, formats=FORMATS) as file:
            return as_rgb(file if size is None else file.resize(size, Image.Resampling.LANCZOS))
    except FileNotFoundError:
        raise LookmError(f"image {name} is missing") from None
    except UnidentifiedImageError:
        raise LookmError(
            f"image {name} cannot be read: it is no image of a known format ({', '.join(FORMATS)})"
        ) from None
    except LookmError as error:
        raise LookmError(f"image {name} cannot be read: {error}") from None
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        raise LookmError(f"image {name} cannot be read: {kind}{reason}") from None


def as_rgb(image: Image) -> Image:
    """The image as 8-bit RGB.

    Pillow's own conversion cuts grey levels off at 255. Here the levels of 16-bit and integer images count to 65,535,
    those of floating-point images to 1, or to 255 where one of them is above 1.

    Raises:
        LookmError: grey levels that are negative, not finite, or above these.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return image.convert("RGB")
    import numpy as np
    from PIL import Image

    levels = np.asarray(image, dtype=np.float64)
    lowest, highest = float(levels.min()), float(levels.max())
    whites = (1, 255) if image.mode == "F" else (65535,)
    white = next((white for white in whites if highest <= white), None)
    if white is None or not lowest >= 0:
        raise LookmError(f"its grey levels go from {lowest:g} to {highest:g}; they may go from 0 to {whites[-1]}")
    return Image.fromarray(np.round(levels * (255 / white)).astype(np.uint8)).convert("RGB")
