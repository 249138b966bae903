"""One order, one colour and one marker for each strategy, the same in every picture, on light and on dark ground."""

from __future__ import annotations

import colorsys
import zlib
from dataclasses import dataclass

from lookm.registry import PAPER_ROWS


@dataclass(frozen=True)
class Style:
    """How a strategy is drawn: a colour, plotly's symbol and matplotlib's marker."""

    colour: str
    symbol: str
    marker: str


_PAPER = {
    "full": Style("#7d8590", "diamond", "d"),
    "h2o": Style("#2f81d6", "circle", "o"),
    "snapkv": Style("#12a1b8", "square", "s"),
    "roco": Style("#8a6fe0", "triangle-up", "^"),
    "a_merge": Style("#c99700", "triangle-left", "<"),
    "w_merge": Style("#a98a5b", "triangle-right", ">"),
    "p_merge": Style("#b8651b", "triangle-down", "v"),
    "tp": Style("#6aa338", "cross", "P"),
    "tp_amerge": Style("#2c9f6b", "x", "X"),
    "tp_wmerge": Style("#59b39b", "star", "*"),
    "tp_pmerge": Style("#d6336c", "diamond", "D"),
}
_SHAPES = (("hexagon", "h"), ("pentagon", "p"), ("square-open", "s"), ("circle-open", "o"), ("star-triangle-up", "^"))


def style_of(strategy: str) -> Style:
    """How a strategy is drawn; those that are not the paper's get a look that depends on nothing but their name."""
    if strategy in _PAPER:
        return _PAPER[strategy]
    number = zlib.crc32(strategy.encode())
    red, green, blue = colorsys.hls_to_rgb(number % 360 / 360, 0.45, 0.55)
    colour = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
    return Style(colour, *_SHAPES[number // 360 % len(_SHAPES)])


def place_of(strategy: str) -> tuple[int, str]:
    """What strategies are sorted by: the paper's in its order, others behind them by name."""
    known = PAPER_ROWS.index(strategy) if strategy in PAPER_ROWS else len(PAPER_ROWS)
    return known, strategy
