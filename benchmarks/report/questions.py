"""The same runs with their questions seen by the compression, and read after it: side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.evaluation.comparable import common_samples, differences
from benchmarks.milebench import PROTOCOLS
from benchmarks.report.groups import Group, Row
from benchmarks.tables.cells import Cell, Column, Runs, printed_difference
from benchmarks.tables.table import percent, signed


@dataclass(frozen=True)
class Difference:
    """Unseen minus seen in one column.

    Attributes:
        text: in points; ends: the interval at 95 %, empty where there are too few pairs.
        direction: 1 or -1 where the interval lies above or below zero, else 0.
    """

    text: str
    ends: str
    direction: int


@dataclass(frozen=True)
class Line:
    """One strategy at one budget: its mean with the question seen and unseen, and the differences by column."""

    row: Row
    seen: str
    unseen: str
    differences: tuple[Difference | None, ...]


@dataclass(frozen=True)
class SideBySide:
    """Runs of one model and benchmark under both ways to ask.

    Attributes:
        label, setting: as of the groups.
        samples: that all of these runs have.
        columns: of the differences, the mean first, where there is one.
        lines: protocol → lines, in the order of the groups.
    """

    label: str
    setting: str
    samples: int
    columns: tuple[str, ...]
    lines: Mapping[str, Sequence[Line]]


def side_by_side(groups: Sequence[Group]) -> list[SideBySide]:
    """What there is of it: groups that differ only in when questions are read, and have runs and samples in common."""
    pairs = [(one, other) for one in groups for other in groups if _are_pair(one, other)]
    return [both for seen, unseen in pairs if (both := _compared(seen, unseen)) is not None]


def _are_pair(seen: Group, unseen: Group) -> bool:
    if (seen.question, unseen.question) != ("seen", "unseen"):
        return False
    facts = {"seen": seen.rows[0].run.about, "unseen": unseen.rows[0].run.about}
    return not differences(facts, ignored=("question", "semantics", "data."))


def _compared(seen: Group, unseen: Group) -> SideBySide | None:
    import pandas

    later = {(row.variant, row.asked): row for row in unseen.rows}
    pairs = [(row, later[key]) for row in seen.rows if (key := (row.variant, row.asked)) in later]
    names = {row.run.name for pair in pairs for row in pair}
    whole = pandas.concat([seen.frame, unseen.frame])
    whole = whole[whole.run.isin(names)]
    digests = whole.groupby(["dataset", "sample_id"], sort=False).digest.transform("nunique")
    frame = common_samples(whole[digests == 1], datasets=True)
    if frame.empty:
        return None
    columns = [column for column in seen.columns if {info.dataset for info in column.infos} & set(frame.dataset)]
    columns = [*columns[-1:], *columns[:-1]]
    return SideBySide(
        seen.label,
        seen.setting,
        len(frame[["dataset", "sample_id"]].drop_duplicates()),
        tuple(column.name for column in columns),
        {protocol: _lines(Runs(frame, protocol), pairs, columns) for protocol in PROTOCOLS},
    )


def _lines(runs: Runs, pairs: Sequence[tuple[Row, Row]], columns: Sequence[Column]) -> list[Line]:
    lines = []
    for seen, unseen in pairs:
        cells = runs.cells(columns, seen.run.name, names=[seen.run.name, unseen.run.name])
        before, after = ([cells.get((row.run.name, c.name)) for c in columns] for row in (seen, unseen))
        first, last = (percent(None if own[0] is None else own[0].score) for own in (before, after))
        lines.append(Line(seen, first, last, tuple(map(_difference, before, after))))
    return lines


def _difference(seen: Cell | None, unseen: Cell | None) -> Difference | None:
    if seen is None or unseen is None or unseen.difference is None:
        return None
    ends = unseen.interval
    return Difference(
        signed(printed_difference(unseen.score, seen.score, unseen.difference)),
        "" if ends is None else f"[{signed(100 * ends.low, end=True)}, {signed(100 * ends.high, end=True)}]",
        unseen.direction,
    )
