"""Summaries as aligned text: the table of one run and the comparison of many."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.evaluation.store import AFRESH
from benchmarks.evaluation.summary import Summary, TaskRow

ABSENT = "–"
PROTOCOLS = ("official", "repaired")
COSTS = ("budget %", "kept KV", "changed %", "ms/token")


def align(rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> str:
    """Lines up cells: the first `text_columns` to the left, the others to the right, a rule below the first row."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "─" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:]])


def run_table(summary: Summary) -> str:
    """A run's table, one line per task code and their mean, with a title and the notes it needs."""
    settings, strategy = summary.settings, summary.settings.strategy
    budget = f"nominal budget {strategy.nominal_budget:.0%}"
    if settings.compresses:
        budget += f" (α {strategy.alpha1:g} + {strategy.alpha2:g}), semantics {strategy.semantics}"
    title = f"{summary.model_label} · {settings.benchmark.label} · {strategy.name}, {budget}"
    head = ["task", "n", "failed", "score %", "repaired %", "chance %", *COSTS]
    rows = [head, *(_cells(row) for row in (*summary.rows, summary.mean))]
    return "\n".join([title, "", align(rows), "", f"Results: {settings.folder}", *_notes(summary)])


def comparison_table(summaries: Sequence[Summary]) -> str:
    """One line per run: its scores per task code, and what they cost. Title and notes included.

    Columns that would say the same in every line are left out or moved into the title.
    """
    places = dict.fromkeys((item.model_label, item.settings.benchmark.label) for item in summaries)
    semantics = dict.fromkeys(item.settings.strategy.semantics for item in summaries if item.settings.compresses)
    texts: dict[str, list[str]] = {"strategy": [item.settings.strategy.name for item in summaries]}
    for name, field in (("α1", "alpha1"), ("α2", "alpha2")):
        texts[name] = [_if_compressed(item, f"{getattr(item.settings.strategy, field):g}") for item in summaries]
    if len(semantics) > 1:
        texts["semantics"] = [_if_compressed(item, item.settings.strategy.semantics) for item in summaries]
    if len(places) > 1:
        texts["model"] = [item.settings.model for item in summaries]
        texts["benchmark"] = [item.settings.benchmark.label for item in summaries]
    if len({_setting(item) for item in summaries}) > 1:
        texts["settings"] = [_setting(item) for item in summaries]

    tasks = list(dict.fromkeys(row.task for item in summaries for row in item.rows))
    any_failed = any(item.mean.failed + item.mean.missing for item in summaries)
    head = [*texts, *tasks, "mean", *(["failed"] if any_failed else [])]
    rows = [[*head, *COSTS]]
    for place, item in enumerate(summaries):
        scores = {row.task: row.scores.get("official") for row in item.rows}
        cells = [column[place] for column in texts.values()]
        cells += [percent(scores.get(task)) for task in tasks] + [percent(item.mean.scores.get("official"))]
        cells += [str(item.mean.failed + item.mean.missing)] if any_failed else []
        rows.append(cells + _costs(item.mean))
    first = summaries[0]
    if len(places) == 1 and first.mean.chance is not None:
        levels = {row.task: percent(row.chance) for row in first.rows}
        cells = ["chance", *[""] * (len(texts) - 1), *(levels.get(task, ABSENT) for task in tasks)]
        cells.append(percent(first.mean.chance))
        rows.append(cells + [""] * (len(rows[0]) - len(cells)))
    title = "; ".join(f"{model} · {benchmark}" for model, benchmark in places)
    title += " · scores in %, official protocol"
    if len(semantics) == 1:
        title += f", semantics {next(iter(semantics))}"
    if all(item.mean.decode_ms is None for item in summaries):
        rows = [row[:-1] for row in rows]
    notes = dict.fromkeys(note for item in summaries for note in _notes(item))
    results = dict.fromkeys(f"Results: {item.settings.results_dir}" for item in summaries)
    return "\n".join([title, "", align(rows, text_columns=len(texts)), "", *results, *notes])


def _if_compressed(summary: Summary, text: str) -> str:
    return text if summary.settings.compresses else ABSENT


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return ABSENT if share is None else f"{100 * share:.1f}"


def size(n_bytes: float | None) -> str:
    """Bytes in the binary unit that keeps the number short."""
    if n_bytes is None:
        return ABSENT
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.2f} GiB"


def _cells(row: TaskRow) -> list[str]:
    scores = [percent(row.scores.get(protocol)) for protocol in PROTOCOLS]
    return [row.task, str(row.n), str(row.failed), *scores, percent(row.chance), *_costs(row)]


def _costs(row: TaskRow) -> list[str]:
    speed = ABSENT if row.decode_ms is None else f"{row.decode_ms:.2f}"
    return [percent(row.budget), size(row.kept_bytes), percent(row.changed), speed]


def _setting(summary: Summary) -> str:
    """What tells apart runs of one strategy and budget: data type, seed, changed fields."""
    settings = summary.settings
    changed = [f"{key}={value}" for key, value in settings.deviations.items()]
    return " ".join([settings.dtype, *([f"seed={settings.seed}"] if settings.seed else []), *changed])


def _notes(summary: Summary) -> list[str]:
    settings, mean = summary.settings, summary.mean
    notes = []
    if summary.commits:
        others = ", ".join(commit[:7] for commit in summary.commits)
        notes.append(f"Samples computed by another commit of this program ({others}) were kept; {AFRESH}.")
    if mean.failed:
        notes.append(
            "Scores are over answered samples; failed ones are in samples.jsonl with their reason and are tried again "
            "by the next run."
        )
    if mean.n and mean.decode_ms is None:
        notes.append(
            "ms/token: no decode step was of one strategy alone; hydra/launcher=basic overwrite=true times each by "
            "itself."
        )
    if not settings.compresses:
        return notes
    if mean.changed is None:
        notes.append("changed: no run with the full cache to compare with; run the same with strategy=full.")
    elif mean.compared < mean.n:
        notes.append(f"changed: {mean.compared} of {mean.n} answers have one of the full cache to compare with.")
    return notes


def job_line(summary: Summary, computed: int) -> str:
    """What one job of a sweep came to, in a line; `computed` of its samples were not there before."""
    mean = summary.mean
    parts = [
        f"{computed} samples computed" if computed else "all there already",
        f"score {percent(mean.scores.get('official'))} %",
        f"budget {percent(mean.budget)} %",
        *([f"{mean.failed} failed"] if mean.failed else []),
    ]
    return f"{summary.settings.run}: {', '.join(parts)}"
