"""The table of one run and the comparison of a sweep's runs, from their summaries."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.evaluation.cells import TASK_MEAN, Totals
from benchmarks.evaluation.store import AFRESH
from benchmarks.evaluation.summary import Summary
from benchmarks.milebench import PROTOCOLS
from benchmarks.tables.table import ABSENT, Row, Table, Text, percent, size

COSTS = ("budget %", "kept KV", "changed %", "ms/token")
PARTIAL = "°"


def run_table(summary: Summary) -> Table:
    """A run's table, one line per task code and their mean."""
    settings, strategy = summary.settings, summary.settings.strategy
    halves = f"α {strategy.alpha1:g} + {strategy.alpha2:g}"
    if settings.compresses and not settings.has_budget:
        budget = "no budget"
    elif strategy.nominal_budget is None:
        budget = f"budget {strategy.budget} tokens ({halves})"
    else:
        budget = f"{'nominal budget' if strategy.budget is None else 'budget'} {strategy.nominal_budget:.0%}"
        budget += f" ({halves})" if settings.compresses else ""
    budget += f", semantics {strategy.semantics}" if settings.compresses else ""
    budget += f", question {settings.question}" if settings.asked_later else ""
    head = ("task", "n", "failed", "score %", "repaired %", "chance %", *COSTS)
    rows = [Row(_cells(task, row)) for task, row in summary.rows.items()]
    rows.append(Row(_cells(TASK_MEAN, summary.mean), "foot"))
    return Table(
        f"{summary.model_label} · {settings.benchmark.label} · {strategy.label}, {budget}",
        head,
        tuple(rows),
        (f"Results: {settings.folder}", *_notes(summary)),
    )


def comparison_table(summaries: Sequence[Summary]) -> Table:
    """One line per run: its scores per task code, and what they cost.

    Columns that would say the same in every line are left out or moved into the title.
    """
    places = dict.fromkeys((item.model_label, item.settings.benchmark.label) for item in summaries)
    semantics = dict.fromkeys(item.settings.strategy.semantics for item in summaries if item.settings.compresses)
    texts = _texts(summaries, several_places=len(places) > 1, several_semantics=len(semantics) > 1)
    tasks = list(dict.fromkeys(task for item in summaries for task in item.rows))
    any_failed = any(item.mean.failed + item.mean.missing for item in summaries)
    timed = any(item.mean.decode_ms is not None for item in summaries)
    costs = COSTS if timed else COSTS[:-1]
    rows = []
    for place, item in enumerate(summaries):
        cells: list[str | Text] = [column[place] for column in texts.values()]
        cells += [percent(item.rows[task].score) if task in item.rows else ABSENT for task in tasks]
        cells.append(percent(item.mean.score))
        cells += [_failed(item.mean.failed + item.mean.missing)] if any_failed else []
        rows.append(Row((*cells, *_costs(item.mean)[: len(costs)])))
    levels = {task: percent(row.chance) for item in summaries for task, row in item.rows.items()}
    if len(places) == 1 and any(level != ABSENT for level in levels.values()):
        means = dict.fromkeys(percent(item.mean.chance) for item in summaries)
        mean = next(iter(means)) if len(means) == 1 else ABSENT
        shown = ["chance", *[""] * (len(texts) - 1), *(levels[task] for task in tasks), mean]
        rows.append(Row((*shown, *[""] * (len(costs) + any_failed)), "dim"))
    title = "; ".join(f"{model} · {benchmark}" for model, benchmark in places) + " · scores in %, official protocol"
    if len(semantics) == 1:
        title += f", semantics {next(iter(semantics))}"
    questions = dict.fromkeys(item.settings.question for item in summaries)
    if set(questions) != {"seen"}:
        title += f", question {' and '.join(questions)}"
    notes = dict.fromkeys(note for item in summaries for note in _notes(item))
    results = dict.fromkeys(f"Results: {item.settings.results_dir}" for item in summaries)
    head = (*texts, *tasks, TASK_MEAN, *(["failed"] if any_failed else []), *costs)
    return Table(title, head, tuple(rows), (*results, *notes), text_columns=len(texts))


def job_line(summary: Summary, computed: int) -> str:
    """What one job of a sweep came to, in a line; `computed` of its samples were not there before."""
    mean = summary.mean
    parts = [
        f"{computed} samples computed" if computed else "all there already",
        f"score {percent(mean.score)} %",
        f"budget {percent(mean.budget)} %",
        *([f"{mean.failed} failed"] if mean.failed else []),
    ]
    return f"{summary.settings.run}: {', '.join(parts)}"


def _texts(summaries: Sequence[Summary], *, several_places: bool, several_semantics: bool) -> dict[str, list[str]]:
    """The columns of a comparison that name its runs: head → a text for each run."""
    texts = {"strategy": [item.settings.strategy.label for item in summaries]}
    for name, field in (("α1", "alpha1"), ("α2", "alpha2")):
        texts[name] = [_if_asked(item, f"{getattr(item.settings.strategy, field):g}") for item in summaries]
    budgets = [item.settings.strategy.budget for item in summaries]
    if any(budget is not None for budget in budgets):
        shown = [ABSENT if budget is None else f"{budget:g}" for budget in budgets]
        texts["budget"] = [_if_asked(item, text) for item, text in zip(summaries, shown, strict=True)]
    if several_semantics:
        texts["semantics"] = [
            item.settings.strategy.semantics if item.settings.compresses else ABSENT for item in summaries
        ]
    if several_places:
        texts["model"] = [item.settings.model for item in summaries]
        texts["benchmark"] = [item.settings.benchmark.label for item in summaries]
    if len({_setting(item) for item in summaries}) > 1:
        texts["settings"] = [_setting(item) for item in summaries]
    return texts


def _if_asked(summary: Summary, text: str) -> str:
    return text if summary.settings.has_budget else ABSENT


def _cells(task: str, row: Totals) -> tuple[str | Text, ...]:
    scores = [percent(row.scores.get(protocol)) for protocol in PROTOCOLS]
    return (task, str(row.n), _failed(row.failed), *scores, percent(row.chance), *_costs(row))


def _failed(number: int) -> str | Text:
    return Text(str(number), style="bad") if number else "0"


def _costs(row: Totals) -> list[str | Text]:
    speed: str | Text = ABSENT if row.decode_ms is None else f"{row.decode_ms:.2f}"
    if row.decode_ms is not None and row.timed < row.n:
        speed = Text(f"{row.decode_ms:.2f}", PARTIAL)
    return [percent(row.budget), size(row.kept_bytes), percent(row.changed), speed]


def _setting(summary: Summary) -> str:
    """What tells apart runs of one strategy and budget: data type, seed, when questions are read, changed fields."""
    settings = summary.settings
    asked = [f"question={settings.question}"] if settings.asked_later else []
    changed = [f"{key}={value}" for key, value in settings.deviations.items()]
    return " ".join([settings.dtype, *([f"seed={settings.seed}"] if settings.seed else []), *asked, *changed])


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
    elif mean.timed < mean.n:
        notes.append(
            f"{PARTIAL} ms/token: {settings.strategy.label} over {mean.timed} of {mean.n} samples; the others were "
            "decoded together with other strategies."
        )
    if settings.is_full:
        return notes
    if mean.changed is None:
        notes.append("changed: no run with the full cache to compare with; run the same with strategy=full.")
    elif mean.paired < mean.n:
        notes.append(f"changed: {mean.paired} of {mean.n} answers have one of the full cache to compare with.")
    return notes
