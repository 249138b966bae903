"""One colour and one marker for each strategy, the same in every picture, on light and on dark ground."""

from __future__ import annotations

from dataclasses import dataclass

from lookm.registry import strategy_names

_KNOWN = {
    "full": ("#7d8590", "diamond"),
    "h2o": ("#2f81d6", "circle"),
    "snapkv": ("#12a1b8", "square"),
    "roco": ("#8a6fe0", "triangle-up"),
    "a_merge": ("#c99700", "circle-open"),
    "w_merge": ("#a98a5b", "square-open"),
    "p_merge": ("#b8651b", "triangle-up-open"),
    "tp": ("#6aa338", "cross"),
    "tp_amerge": ("#2c9f6b", "x"),
    "tp_wmerge": ("#59b39b", "star"),
    "tp_pmerge": ("#d6336c", "star-diamond"),
}
_OTHERS = ("#9c4dcc", "#d9822b", "#3d7a5d", "#b3446c", "#5a6acf", "#8f7a1e")
_MARKERS = ("hexagon", "pentagon", "bowtie", "hourglass", "triangle-down", "diamond-open")


@dataclass(frozen=True)
class Look:
    """How a strategy is drawn; `marker` is a name of plotly's."""

    colour: str
    marker: str


def look_of(strategy: str, variant: int = 0) -> Look:
    """How a strategy is drawn; those not listed above get what is left, by their place in the registry or their name.

    Args:
        strategy: its name.
        variant: 0 for its usual form; others (another semantics, changed fields) keep the colour and change the marker.
    """
    others = [name for name in strategy_names() if name not in _KNOWN]
    place = others.index(strategy) if strategy in others else sum(map(ord, strategy))
    other = _OTHERS[place % len(_OTHERS)], _MARKERS[place // len(_OTHERS) % len(_MARKERS)]
    colour, marker = _KNOWN.get(strategy, other)
    return Look(colour, marker if not variant else _MARKERS[(variant - 1) % len(_MARKERS)])
