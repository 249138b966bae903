"""What a reader must be able to trust: budgets that were really kept, what was cut off, what failed, where from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.audit import promised_range
from benchmarks.report.groups import Group, Row
from lookm.registry import strategy_names

if TYPE_CHECKING:
    import pandas

_MOST_FAILURES = 60


@dataclass(frozen=True)
class BudgetAudit:
    """What one run kept, as shares of the prompt in [0, 1].

    Attributes:
        row: the run.
        nominal: α1 + α2; None for a number of tokens.
        low, mean, high: over its samples.
        over: how many samples kept more than the budget allows; samples: of how many.
        broken: how many kept something else than the strategy promises; None where it is unknown here.
        text: mean share of text in the prompts, which explains the budgets of a text prior.
    """

    row: Row
    nominal: float | None
    low: float
    mean: float
    high: float
    over: int
    samples: int
    broken: int | None
    text: float

    @property
    def broken_count(self) -> int:
        """The broken promises that are known of."""
        return self.broken or 0


@dataclass(frozen=True)
class Truncation:
    """Samples of one dataset that did not fit into the context, those of them that lost images, and the mean losses."""

    dataset: str
    task: str
    samples: int
    truncated: int
    lost_images: int
    images: float
    tokens: float


@dataclass(frozen=True)
class Failure:
    """A sample without an answer."""

    run: str
    dataset: str
    sample_id: str
    error: str


def budget_audits(group: Group) -> list[BudgetAudit]:
    """One audit a run that has answers."""
    answered = group.frame[group.frame.error.isna()]
    parts = {str(run): rows for run, rows in answered.groupby("run", sort=False)}
    audits = []
    for row in group.rows:
        rows = parts.get(row.run.name)
        if rows is None or rows.realised_budget.isna().all():
            continue
        kept = rows.realised_budget
        broken = None
        if row.built is not None:
            promises = [
                promised_range(row.built, int(length), int(images))
                for length, images in zip(rows.prompt_tokens, rows.image_tokens, strict=True)
            ]
            pairs = zip(kept * rows.prompt_tokens, promises, strict=True)
            broken = sum(not low - 1e-6 <= tokens <= high + 1e-6 for tokens, (low, high) in pairs)
        audits.append(
            BudgetAudit(
                row=row,
                nominal=row.budget,
                low=float(kept.min()),
                mean=float(kept.mean()),
                high=float(kept.max()),
                over=int((kept > _allowed(row, rows.prompt_tokens) + 1e-9).sum()),
                samples=len(rows),
                broken=broken,
                text=float((1 - rows.image_tokens / rows.prompt_tokens).mean()),
            )
        )
    return audits


def _allowed(row: Row, prompt_tokens: pandas.Series) -> float | pandas.Series:
    """The share of each prompt that the budget allows."""
    if row.budget is not None:
        return row.budget
    assert row.asked is not None
    assert row.asked[2] is not None
    return (row.asked[2] / prompt_tokens).clip(upper=1)


def truncations(group: Group) -> list[Truncation]:
    """One line a dataset, from the first run: all runs of a group have the same prompts."""
    rows = group.frame[group.frame.run == group.rows[0].run.name]
    return [
        Truncation(
            dataset=str(dataset),
            task=str(part.task.iloc[0]),
            samples=len(part),
            truncated=int(((part.dropped_images > 0) | (part.dropped_tokens > 0)).sum()),
            lost_images=int((part.dropped_images > 0).sum()),
            images=float(part.dropped_images.mean()),
            tokens=float(part.dropped_tokens.mean()),
        )
        for dataset, part in rows.groupby("dataset", sort=False)
    ]


def failures(group: Group) -> tuple[list[Failure], int]:
    """The first failures, and how many there are in all."""
    rows = group.frame[group.frame.error.notna()]
    listed = zip(rows.run, rows.dataset, rows.sample_id, rows.error, strict=True)
    listed_failures = [Failure(*map(str, line)) for line in listed]
    return listed_failures[:_MOST_FAILURES], len(listed_failures)


@dataclass(frozen=True)
class Origin:
    """Where one run is from: what was computed when, on what, by which version of this program.

    `command` computes it again; empty where the strategy's YAML is not known here.
    """

    row: Row
    state: str
    samples: int
    started: str
    ended: str
    commits: tuple[str, ...]
    weights: str
    hardware: str
    versions: str
    command: str
    configuration: Mapping[str, Any]


def origins(group: Group) -> list[Origin]:
    """One entry a run."""
    counts = Counter(str(run) for run in group.frame.run)
    return [_origin(row, counts[row.run.name]) for row in group.rows]


def _origin(row: Row, samples: int) -> Origin:
    about = row.run.about
    sessions = about.get("sessions") or [{}]
    last = sessions[-1]
    commits = dict.fromkeys(_commit(session.get("git") or {}) for session in sessions)
    hardware = last.get("hardware") or {}
    machine = [hardware.get("accelerator") or hardware.get("processor"), f"{hardware.get('cores')} cores"]
    versions = last.get("versions") or {}
    return Origin(
        row=row,
        state=str(about.get("state", "unknown")),
        samples=samples,
        started=str(sessions[0].get("started", "")),
        ended=str(last.get("ended", "")),
        commits=tuple(commits),
        weights=str(about.get("weights", "")),
        hardware=", ".join(str(part) for part in machine if part) if hardware else "",
        versions=", ".join(f"{name} {value}" for name, value in versions.items()),
        command=_command(row),
        configuration=row.run.configuration,
    )


def _commit(git: Mapping[str, Any]) -> str:
    commit = str(git.get("commit") or "unknown")[:10]
    return f"{commit} with changes" if git.get("dirty") else commit


def _command(row: Row) -> str:
    """What computes the run again, where it deviates from its YAMLs in nothing but strategy and budget."""
    configuration = row.run.configuration
    if row.strategy not in strategy_names() or row.variant.removesuffix(", capped") != row.strategy:
        return ""
    words = [f"model={configuration['model']['name']}", f"benchmark={configuration['benchmark']['name']}"]
    words.append(f"strategy={row.strategy}")
    if row.asked is not None:
        pairs = zip(("alpha1", "alpha2", "budget"), row.asked, strict=True)
        words += [f"{key}={value:g}" for key, value in pairs if value is not None]
        words.append(f"semantics={configuration['strategy'].get('semantics')}")
    if configuration.get("seed"):
        words.append(f"seed={configuration['seed']}")
    words.append(f"dtype={configuration['dtype']}")
    return f"lookm run {' '.join(words)}"
