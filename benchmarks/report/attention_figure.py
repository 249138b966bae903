"""The paper's Figure 2 for any model and sample: attention by modality while the prompt is encoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from lookm.attention_map import AttentionMap
from lookm.errors import LookmError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure
    from torch import Tensor

TEXT, IMAGE, INK = "#c2410c", "#1d6fb8", "#333333"
_MOST_PANELS, _MOST_BARS, _BAR = 4, 12, 0.24
_ALIKE = "images, if all tokens were looked at alike"


@dataclass(frozen=True)
class _Kind:
    """Whose queries: the third number of `AttentionMap.to_images`, and how it is drawn."""

    name: str
    offset: float
    hatch: str
    colour: str


KINDS = (
    _Kind("all queries", -0.27, "", INK),
    _Kind("text queries", 0.0, "///", TEXT),
    _Kind("image queries", 0.27, "...", IMAGE),
)


def modality_edges(is_image: Tensor, cells: int) -> tuple[int, ...]:
    """Edges of cells that hold either text or image tokens, none longer than 1 / `cells` of the prompt.

    Args:
        is_image: (L,) bool.
        cells: how many even cells the prompt would have; there are a few more, since none mixes text and images.
    """
    length = is_image.numel()
    longest = max(1, -(-length // cells))
    kinds = is_image.tolist()
    borders = [0, *(place for place in range(1, length) if kinds[place] != kinds[place - 1]), length]
    edges = [0]
    for start, end in pairwise(borders):
        parts = -(-(end - start) // longest)
        edges += [start + (end - start) * part // parts for part in range(1, parts + 1)]
    return tuple(edges)


def draw_attention(maps: Sequence[AttentionMap], is_image: Tensor, title: str) -> Figure:
    """Maps of up to four layers, spread over the depth, and what images receive in every layer.

    Args:
        maps: of each layer, one prompt; all with the same edges.
        is_image: (L,) bool.
        title: above all.
    """
    from matplotlib.figure import Figure

    layers = _spread(len(maps), _MOST_PANELS)
    figure = Figure(figsize=(3.1 * len(layers) + 0.6, 7.2), layout="constrained", dpi=150)
    figure.suptitle(title, fontsize=11, color=INK)
    grid = figure.add_gridspec(2, len(layers), height_ratios=[1.15, 1])
    values = [maps[layer].cells.mean(0) for layer in layers]
    seen = [value[~value.isnan() & (value > 0)] for value in values]
    low = min(float(value.quantile(0.1)) for value in seen)
    high = max(float(value.quantile(0.995)) for value in seen)
    panels = []
    for place, layer in enumerate(layers):
        panels.append(figure.add_subplot(grid[0, place]))
        mesh = _draw_map(panels[-1], maps[layer].edges, values[place], is_image, (low, high))
        panels[-1].set_title(f"layer {layer + 1} of {len(maps)}", fontsize=9, color=INK)
    panels[0].set_ylabel("query position", fontsize=9)
    bar = figure.colorbar(mesh, ax=panels, shrink=0.85, pad=0.01)
    bar.set_label("mean attention, all heads", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    _draw_shares(figure.add_subplot(grid[1, :]), maps)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a picture atomically, in the format that the name ends in.

    Raises:
        LookmError: the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LookmError(f"{path} cannot be written ({error.strerror}); choose another --output") from None


def _spread(n: int, most: int) -> list[int]:
    """At most so many of the numbers 0 … n − 1, first and last among them, evenly."""
    return list(range(n)) if n <= most else sorted({round(k * (n - 1) / (most - 1)) for k in range(most)})


def _draw_map(
    axes: Axes, edges: Sequence[int], cells: Tensor, is_image: Tensor, limits: tuple[float, float]
) -> QuadMesh:
    from matplotlib.colors import LogNorm

    length = is_image.numel()
    shown = cells.clamp(min=limits[0]).numpy()
    mesh = axes.pcolormesh(edges, edges, shown, cmap="magma_r", norm=LogNorm(*limits), rasterized=True)
    width = length * 0.035
    for start, end, image in _runs(is_image):
        colour = IMAGE if image else TEXT
        axes.fill_between([start, end], -width, 0, color=colour, linewidth=0)
        axes.fill_betweenx([start, end], -width, 0, color=colour, linewidth=0)
    axes.set(xlim=(-width, length), ylim=(length, -width), aspect="equal", xlabel="key position")
    axes.xaxis.label.set_fontsize(9)
    axes.tick_params(labelsize=7)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    return mesh


def _draw_shares(axes: Axes, maps: Sequence[AttentionMap]) -> None:
    """What images receive in each layer, by whose queries look: stacked bars, or lines where the layers are many."""
    for kind in range(len(KINDS)):
        images = [100 * float(attention.to_images[:, kind].mean()) for attention in maps]
        alike = 100 * float(maps[0].visible_images[kind])
        if len(maps) > _MOST_BARS:
            layers = range(1, len(maps) + 1)
            axes.plot(layers, images, color=KINDS[kind].colour, marker="o", markersize=3, label=KINDS[kind].name)
            axes.axhline(alike, color=KINDS[kind].colour, linestyle="--", linewidth=1)
        else:
            _draw_bars(axes, [layer + 1 + KINDS[kind].offset for layer in range(len(maps))], images, alike, kind)
    axes.set(ylim=(0, 100), xlim=(0.4, len(maps) + 0.6), xlabel="layer", ylabel="share of attention, %")
    axes.set_xticks(range(1, len(maps) + 1, 1 if len(maps) <= 16 else 4))
    axes.tick_params(labelsize=8)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    _draw_legend(axes, lines=len(maps) > _MOST_BARS)


def _draw_bars(axes: Axes, places: Sequence[float], images: Sequence[float], alike: float, kind: int) -> None:
    hatch, text = KINDS[kind].hatch, [100 - share for share in images]
    axes.bar(places, images, color=IMAGE, width=_BAR, edgecolor="white", hatch=hatch, linewidth=0.6)
    axes.bar(places, text, bottom=images, color=TEXT, width=_BAR, edgecolor="white", hatch=hatch, linewidth=0.6)
    for place in places:
        axes.plot([place - _BAR / 2, place + _BAR / 2], [alike, alike], color="black", linewidth=1.6)


def _draw_legend(axes: Axes, *, lines: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = []
    if lines:
        handles += [Line2D([], [], color=kind.colour, marker="o", markersize=3, label=kind.name) for kind in KINDS]
        handles.append(Line2D([], [], color="grey", linestyle="--", label=_ALIKE))
    else:
        handles += [Patch(color=TEXT, label="received by text"), Patch(color=IMAGE, label="received by images")]
        handles.append(Line2D([], [], color="black", linewidth=1.6, label=_ALIKE))
        handles += [Patch(facecolor="#999999", edgecolor="white", hatch=k.hatch, label=k.name) for k in KINDS]
    columns = 2 if lines else 3
    axes.legend(
        handles=handles, fontsize=8, ncols=columns, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )


def _runs(is_image: Tensor) -> list[tuple[int, int, bool]]:
    """Stretches of one kind: start, end, whether of image tokens."""
    kinds = is_image.tolist()
    borders = [0, *(place for place in range(1, len(kinds)) if kinds[place] != kinds[place - 1]), len(kinds)]
    return [(start, end, kinds[start]) for start, end in pairwise(borders)]
