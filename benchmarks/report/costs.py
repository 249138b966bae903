"""What runs cost, and which of them are beaten by none."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.scenes import Row, Scene


def cost_of(scene: Scene, row: Row, datasets: Sequence[str], quantity: str) -> float | None:
    """Mean `kept_bytes`, or median `decode_ms`, of a run's answered samples; None where there is none.

    Args:
        scene: where the run is from.
        row: the run.
        datasets: whose samples count.
        quantity: "kept_bytes" or "decode_ms".
    """
    table = scene.table
    values = table[(table.run == row.run.name) & table.dataset.isin(datasets) & table.error.isna()][quantity].dropna()
    if values.empty:
        return None
    return float(values.mean() if quantity == "kept_bytes" else values.median())


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, score) that no other beats, by rising cost.

    A point is beaten by one that costs no more and scores no less, and differs in one of the two.

    Example:
        >>> pareto_front([(1, 40), (2, 35), (3, 50)])
        [(1, 40), (3, 50)]
    """
    front: list[tuple[float, float]] = []
    for cost, score in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front
