"""The paper's Figure 2 for any model and sample: attention by modality while the prompt is encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.files import replacing, writing
from lookm.attention_map import AttentionMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure
    from torch import Tensor

TEXT, IMAGE, INK = "#c2410c", "#1d6fb8", "#333333"
KINDS = (("all queries", INK), ("text queries", TEXT), ("image queries", IMAGE))
"""Whose queries: the third index of `AttentionMap.to_images`, and how it is drawn."""
_MOST_PANELS = 4


def modality_edges(is_image: Tensor, cells: int) -> tuple[int, ...]:
    """Edges of cells that hold either text or image tokens, none longer than 1 / `cells` of the prompt.

    Args:
        is_image: (L,) bool.
        cells: how many even cells the prompt would have; there are a few more, since none mixes text and images.
    """
    longest = max(1, -(-is_image.numel() // cells))
    edges = [0]
    for start, end, _ in _stretches(is_image):
        parts = -(-(end - start) // longest)
        edges += [start + (end - start) * part // parts for part in range(1, parts + 1)]
    return tuple(edges)


def draw_attention(maps: Sequence[AttentionMap], is_image: Tensor, title: str) -> Figure:
    """Maps of up to four layers, spread over the depth, and what images receive in every layer.

    Args:
        maps: of each layer, one prompt; all with the same edges.
        is_image: (L,) bool.
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
    with writing(path, "--output"), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])


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
    for start, end, image in _stretches(is_image):
        colour = IMAGE if image else TEXT
        axes.fill_between([start, end], -width, 0, color=colour, linewidth=0)
        axes.fill_betweenx([start, end], -width, 0, color=colour, linewidth=0)
    axes.set(xlim=(-width, length), ylim=(length, -width), aspect="equal", xlabel="key position")
    axes.xaxis.label.set_fontsize(9)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return mesh


def _draw_shares(axes: Axes, maps: Sequence[AttentionMap]) -> None:
    """What images receive in each layer, by whose queries look, beside what they would if all tokens were alike."""
    layers = range(1, len(maps) + 1)
    for kind, (name, colour) in enumerate(KINDS):
        images = [100 * float(attention.to_images[:, kind].mean()) for attention in maps]
        axes.plot(layers, images, color=colour, marker="o", markersize=4, label=name)
        axes.axhline(100 * float(maps[0].visible_images[kind]), color=colour, linestyle="--", linewidth=1)
    axes.plot([], [], color="grey", linestyle="--", label="if all tokens were looked at alike")
    axes.set(ylim=(0, 100), xlim=(0.4, len(maps) + 0.6), xlabel="layer", ylabel="attention that images receive, %")
    axes.set_xticks(range(1, len(maps) + 1, 1 if len(maps) <= 16 else 4))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, ncols=2, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _stretches(is_image: Tensor) -> Iterator[tuple[int, int, bool]]:
    """Runs of tokens of one kind: start, end, whether of images."""
    start = 0
    for image, run in groupby(is_image.tolist()):
        end = start + len(list(run))
        yield start, end, image
        start = end
