"""What strategies keep of one prompt, as a picture: its words shaded, its images veiled where their tokens went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from lookm.errors import LookmError
from lookm.kept import KeptPositions, image_spans, token_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

INK, GONE, WARM = "#222222", "#9aa1a8", (1.0, 0.6, 0.0)
_VEIL = np.array([0.08, 0.1, 0.14])
_LINE = 60  # characters of a line of text
_POINTS = 9.4
_STEP = 0.2  # inches between lines
_ACROSS = 8  # images beside each other


def heat(picture: Image, share: Tensor, side: int = 96) -> np.ndarray:
    """A picture whose evicted parts are dark and whose kept parts are warm.

    Args:
        picture: any size; it is shown as a square of `side` pixels.
        share: of its tokens, row by row, which share of the heads kept each, (T,) float32 in [0, 1].
        side: pixels of the result's sides.

    Returns:
        (side, side, 3) float64 in [0, 1].
    """
    from PIL.Image import Resampling

    rows, columns = token_grid(share.numel(), picture.width / picture.height)
    pixels = np.asarray(picture.convert("RGB").resize((side, side), Resampling.NEAREST)) / 255
    warmth = np.sqrt(share.numpy()).reshape(rows, columns)
    down, across = (np.arange(side) * n // side for n in (rows, columns))
    warmth = warmth[down][:, across][..., None]
    colour = _VEIL + warmth * (np.array(WARM) - _VEIL)
    alpha = 0.74 - 0.36 * warmth
    return pixels * (1 - alpha) + colour * alpha


def draw_kept(
    tokens: Sequence[str],
    images: Sequence[Image],
    kept: Sequence[KeptPositions],
    title: str,
    layer: int | None = None,
) -> Figure:
    """One line a strategy: the prompt's words on the left, its images on the right.

    Args:
        tokens: the text of each of the prompt's tokens, such as `token_texts` makes them.
        layer: one layer; None sums up all of them.

    Raises:
        LookmError: if the image tokens cannot be divided among so many images.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise LookmError("pictures are drawn by matplotlib: pip install 'lookm-harness[harness]'") from None

    spans = image_spans(kept[0].is_image, len(images))
    down = -(-len(spans) // _ACROSS)
    lines = _lines(tokens, kept[0].is_image)
    height = max(0.62 * down, _STEP * len(lines)) + 0.42
    figure = Figure(figsize=(11, height * len(kept) + 0.5), dpi=130)
    figure.suptitle(title, fontsize=10.5, color=INK, x=0.012, ha="left", y=1 - 0.16 / figure.get_figheight())
    share_of_height = height / figure.get_figheight()
    for place, positions in enumerate(kept):
        share = positions.share() if layer is None else positions.mask(layer).float().mean(0)
        bottom = 1 - 0.42 / figure.get_figheight() - (place + 1) * share_of_height
        axes = figure.add_axes((0.012, bottom, 0.47, share_of_height))
        _draw_text(axes, positions, share, lines)
        axes = figure.add_axes((0.485, bottom + 0.05 * share_of_height, 0.505, 0.9 * share_of_height))
        _draw_images(axes, images, [share[span.start : span.stop] for span in spans], down)
    return figure


def shown_in_notebooks(figure: Figure) -> Figure:
    """The figure, such that a notebook's cell that ends with it shows it, with `%matplotlib inline` or without."""

    def png() -> bytes:
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
        return buffer.getvalue()

    figure._repr_png_ = png  # type: ignore[attr-defined]
    return figure


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> tuple[str, ...]:
    """Each token's text, with the space before it that some tokenizers leave out of a text's beginning."""
    texts = []
    for token in ids:
        text, piece = str(tokenizer.decode([token])), str(tokenizer.convert_ids_to_tokens(token))
        texts.append(f" {text}" if piece.startswith("▁") and not text.startswith(" ") else text)
    return tuple(texts)


def _lines(tokens: Sequence[str], is_image: Tensor) -> list[list[tuple[int, str]]]:
    """Words (position −1: an image's place) in lines of limited length."""
    words: list[tuple[int, str]] = []
    for position, (text, image) in enumerate(zip(tokens, is_image.tolist(), strict=True)):
        if not image:
            words.append((position, text.replace("\n", "↵")))
        elif not words or words[-1][0] != -1:
            words.append((-1, "▣"))
    lines: list[list[tuple[int, str]]] = [[]]
    for word in words:
        if sum(len(text) for _, text in lines[-1]) + len(word[1]) > _LINE:
            lines.append([])
        lines[-1].append(word)
    return lines


def _draw_text(axes: Axes, kept: KeptPositions, share: Tensor, lines: Sequence[Sequence[tuple[int, str]]]) -> None:
    """The strategy's name and numbers, and below them the words, shaded by how many heads kept them."""
    figure = axes.figure
    axes.set_axis_off()
    inches = axes.get_position()
    wide, high = inches.width * figure.get_figwidth(), inches.height * figure.get_figheight()  # type: ignore[union-attr]
    axes.set(xlim=(0, wide), ylim=(high, 0))
    is_image, text = kept.is_image, ~kept.is_image
    numbers = f"text {_mean(share, text):.0%}, images {_mean(share, is_image):.0%} kept"
    axes.text(0, 0.16, kept.strategy.name, fontsize=10, weight="bold", color=INK, va="center")
    axes.text(0.95, 0.16, numbers, fontsize=8.5, color="#555555", va="center")
    step = 0.602 * _POINTS / 72
    for number, line in enumerate(lines):
        x, y = 0.0, 0.44 + _STEP * number
        for position, word in line:
            value = float(share[position]) if position >= 0 else 0.0
            if value > 0:
                shade = (*WARM, 0.12 + 0.5 * value)
                axes.fill_between([x, x + step * len(word)], y - 0.085, y + 0.09, color=shade, linewidth=0)
            axes.text(x, y, word, fontsize=_POINTS, family="monospace", va="center", color=INK if value > 0 else GONE)
            x += step * len(word)


def _mean(share: Tensor, where: Tensor) -> float:
    return float(share[where].mean()) if bool(where.any()) else 0.0


def _draw_images(axes: Axes, images: Sequence[Image], shares: Sequence[Tensor], down: int) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, _ACROSS), ylim=(down, 0), aspect="equal", anchor="NW")
    for number, (picture, share) in enumerate(zip(images, shares, strict=True)):
        x, y = number % _ACROSS, number // _ACROSS
        axes.imshow(heat(picture, share), extent=(x + 0.04, x + 0.96, y + 0.96, y + 0.04), interpolation="nearest")
    axes.set(xlim=(0, _ACROSS), ylim=(down, 0))
