"""Every method at the same realised bytes, with intervals against LOOK-M and against the best of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.cells import Column, benchmark_columns
from benchmarks.evaluation.comparable import check_comparable, check_same_samples, choose_runs, common_samples
from benchmarks.evaluation.store import RunFolder
from benchmarks.tables.cells import FEWEST_PAIRS, Cell, Runs, printed_difference
from benchmarks.tables.frame import budget_text, known_datasets, read_frame, run_settings
from benchmarks.tables.paper import measured_by_others
from benchmarks.tables.table import ABSENT, Row, Table, Text, in_percent, percent, signed
from lookm.errors import LookmError
from lookm.registry import ready_strategies

if TYPE_CHECKING:
    import pandas

LOOKM = "tp_pmerge"
TOLERANCE = 0.02
"""Mean relative difference of a sample's bytes from LOOK-M's up to which a run counts as one of the same bytes."""
FILL = "To fill it: lookm sweep +experiment=matched"


@dataclass(frozen=True)
class EqualBytes:
    """Comparable runs with a `budget=`, and those whose strategy has none.

    Attributes:
        label: what titles call model and benchmark; benchmark: its name; protocol: whose scores.
        asked: name of a run → its budget, None where its strategy has none.
        variants: name of a run → its strategy and what is unusual about it.
        columns: the columns, their mean last.
        frame: the samples; runs: the same, ready for cells.
    """

    label: str
    benchmark: str
    protocol: str
    asked: Mapping[str, float | None]
    variants: Mapping[str, str]
    columns: tuple[Column, ...]
    frame: pandas.DataFrame
    runs: Runs

    @property
    def budgets(self) -> list[float]:
        """The budgets, the largest share first, numbers of tokens behind."""
        given = {budget for budget in self.asked.values() if budget is not None}
        return sorted(given, key=lambda budget: (budget > 1, -budget))

    @cached_property
    def mean(self) -> Mapping[str, Cell]:
        """Name of a run → its cell in the last column, without differences."""
        cells = self.runs.cells(self.columns[-1:], None, whole=True)
        return {run: cell for (run, _), cell in cells.items()}

    @cached_property
    def shares(self) -> pandas.DataFrame:
        """Bytes kept over those of the full cache, a row for each sample and a column for each run."""
        answered = self.frame[self.frame.error.isna()]
        answered = answered.assign(share=answered.kept_bytes / answered.full_bytes)
        return answered.pivot(index=["dataset", "sample_id"], columns="run", values="share")

    def off(self, run: str, reference: str) -> float:
        """How far a run's bytes are from another's: the mean over samples of their relative difference."""
        return float((self.shares[run] / self.shares[reference] - 1).abs().mean())

    def equal_at(self, budget: float) -> list[str]:
        """Runs at one budget with LOOK-M's bytes, and the full cache; all of them where LOOK-M has no run."""
        names = [run for run, asked in self.asked.items() if asked in (None, budget) and run in self.mean]
        look = next((run for run in names if self.variants[run] == LOOKM), None)
        return [
            run for run in names if look is None or self.variants[run] == "full" or self.off(run, look) <= TOLERANCE
        ]


def equal_bytes(
    runs: Sequence[RunFolder],
    model: str,
    benchmark: str,
    *,
    budgets: Sequence[float] = (),
    semantics: str = "paper",
    protocol: str = "official",
    where: Mapping[str, str] | None = None,
    common: bool = False,
) -> EqualBytes:
    """The runs of one model and benchmark that were made with a `budget=`.

    Args:
        budgets: only these; none takes all that there are.
        where: further conditions on runs (`comparable.facts_of`).

    Raises:
        LookmError: there is no such run, or they must not stand in one table.
    """
    here = [
        run for run in runs
        if (run.configuration["model"]["name"], run.configuration["benchmark"]["name"]) == (model, benchmark)
        and run.configuration["strategy"].get("semantics") in (None, semantics)
    ]  # fmt: skip
    settings = {run.name: run_settings(run) for run in choose_runs(here, where or {})}
    chosen = [
        run for run in here
        if run.name in settings and (_has_none(settings[run.name]) or _is_asked(settings[run.name], budgets))
    ]  # fmt: skip
    if all(_has_none(settings[run.name]) for run in chosen):
        texts = " or ".join(budget_text(0.0, 0.0, budget) for budget in budgets)
        raise LookmError(f"no run of {model} on {benchmark} has a budget{texts and f' of {texts}'}. {FILL}")
    check_comparable(chosen)
    frame = read_frame(chosen)
    frame = common_samples(frame) if common else frame
    check_same_samples(frame)
    columns = benchmark_columns(known_datasets(chosen), set(frame.dataset), paper=benchmark == "milebench")
    return EqualBytes(
        label=str(frame.label.iloc[0]),
        benchmark=benchmark,
        protocol=protocol,
        asked={run.name: settings[run.name]["budget"] for run in chosen},
        variants={run.name: settings[run.name]["variant"].replace(", capped", "", 1) for run in chosen},
        columns=tuple(columns),
        frame=frame,
        runs=Runs(frame, protocol),
    )


def _has_none(settings: Mapping[str, Any]) -> bool:
    return settings["alpha1"] is None


def _is_asked(settings: Mapping[str, Any], budgets: Sequence[float]) -> bool:
    return settings["budget"] is not None and (not budgets or settings["budget"] in budgets)


def matched_table(part: EqualBytes, budget: float) -> Table:
    """The runs at one budget, best first; those of other bytes than LOOK-M's behind them, without differences."""
    names = [run for run, asked in part.asked.items() if asked in (None, budget) and run in part.mean]
    look = next((run for run in names if part.variants[run] == LOOKM), None)
    names.sort(key=lambda run: -part.mean[run].score)
    off = {run: part.off(run, look) for run in names} if look else dict.fromkeys(names, 1.0)
    equal = [run for run in names if off[run] <= TOLERANCE]
    best = equal[0] if equal else None
    against = [part.runs.cells(part.columns, other, names=equal) if other else {} for other in (look, best)]
    column = part.columns[-1].name
    rows = [_row(part, run, [cells[run, column] for cells in against]) for run in equal]
    others = [run for run in names if run not in equal]
    rows += [_row(part, run, [], begins_block=run == others[0]) for run in others]
    levels = {percent(part.mean[run].chance) for run in names}
    if len(levels) == 1:
        rows.append(Row(("chance", *levels, *[""] * 8), "dim"))
    asked = budget_text(0.0, 0.0, budget)
    rivals = (f"− {LOOKM}", f"− {part.variants[best] if best else 'best'}")
    differences = [text for rival in rivals for text in (rival, "95 % from", "to")]
    head = ("strategy", column, *differences, "bytes %", "tokens %")
    title = f"Equal bytes · {asked} · {part.label} · {part.protocol} protocol · scores in %"
    records = [_record(part, run, name.name, budget, off[run], against) for run in names for name in part.columns]
    return Table(title, head, tuple(rows), _notes(part, names, equal, look), records=tuple(records))


def _row(part: EqualBytes, run: str, against: Sequence[Cell], *, begins_block: bool = False) -> Row:
    cell = part.mean[run]
    texts: list[str | Text] = []
    for compared in against:
        texts += _difference(compared, part)
    texts += [""] * (6 - len(texts))
    cells = (part.variants[run], percent(cell.score), *texts, percent(cell.budget), percent(cell.tokens))
    return Row(cells, "" if against else "dim", begins_block)


def _difference(cell: Cell, part: EqualBytes) -> list[str | Text]:
    """A difference and the ends of its interval; nothing for a run against itself."""
    if cell.difference is None:
        return ["", "", ""]
    points = signed(printed_difference(cell.score, cell.score - cell.difference, cell.difference))
    mark, style = ("", "▲", "▼")[cell.direction], ("", "up", "down")[cell.direction]
    ends = (cell.interval.low, cell.interval.high) if cell.interval else (None, None)
    return [Text(points, mark, style), *(ABSENT if end is None else signed(100 * end, end=True) for end in ends)]


def _notes(part: EqualBytes, names: Sequence[str], equal: Sequence[str], look: str | None) -> tuple[str, ...]:
    notes = []
    if look is None:
        notes.append(f"No run of {LOOKM}: there is nothing to compare bytes with.")
    else:
        notes.append(
            f"▲ ▼: the interval of the paired difference lies above or below zero; none with fewer than {FEWEST_PAIRS} "
            f"pairs in a dataset. The best is chosen on the samples that it is compared on, which flatters it."
        )
    if look is not None and len(equal) < len(names):
        notes.append(
            f"Below the gap: runs whose bytes differ from {LOOKM}'s by more than {TOLERANCE:.0%} on the mean of the "
            "samples. They are not compared."
        )
    failed = max(part.mean[run].failed for run in names)
    if failed:
        notes.append(f"Up to {failed} samples of a run have no answer; scores are over those that have one.")
    missing = sorted(set(ready_strategies()) - {part.variants[run].partition(",")[0] for run in names})
    if missing:
        notes.append(f"No run of {', '.join(missing)}. {FILL}")
    return tuple(notes)


def _record(
    part: EqualBytes,
    run: str,
    column: str,
    budget: float,
    off: float,
    against: Sequence[Mapping[tuple[str, str], Cell]],
) -> dict[str, Any]:
    """One cell unrounded, shares in %; differences are None where bytes are not equal."""
    cell = part.runs.cells([one for one in part.columns if one.name == column], None, names=[run]).get((run, column))
    record: dict[str, Any] = {"budget": budget, "strategy": part.variants[run], "run": run, "column": column}
    record |= {name: in_percent(getattr(cell, name, None)) for name in ("score", "chance", "tokens")}
    record |= {"bytes": in_percent(getattr(cell, "budget", None)), "bytes_off": in_percent(off)}
    record |= {name: getattr(cell, name, None) for name in ("n", "failed")}
    for name, cells in zip(("lookm", "best"), against, strict=True):
        compared = cells.get((run, column))
        interval = compared.interval if compared else None
        record[f"minus_{name}"] = in_percent(compared.difference if compared else None)
        record |= {f"{name}_{end}": in_percent(getattr(interval, end, None)) for end in ("low", "high")}
    return record


def others_table() -> Table:
    """What other papers measured for LOOK-M and beside it, with their sources."""
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for entry in measured_by_others():
        source = f"{entry['source']} ({entry['arxiv']})"
        line = source, entry["model"], entry["measured"], percent(float(entry["budget"]))
        method = "its own" if entry["method"] == entry["source"] else entry["method"]
        lines.setdefault(line, {})[method] = entry["score"]
    methods = ("full", "H2O", "SnapKV", "LOOK-M", "MEDA", "its own")
    rows = tuple(Row((*line, *(scores.get(name, ABSENT) for name in methods))) for line, scores in lines.items())
    note = "Copied from the papers; none is ours, and none is compared with ours: other models, budgets and samples."
    head = ("paper (arXiv)", "model", "measured", "budget %", *methods)
    return Table("What others measured for LOOK-M", head, rows, (note,), text_columns=3)
