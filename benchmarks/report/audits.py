"""What a reader must be able to trust: budgets that were really kept, what was cut off, what failed, where from.

Each function gives the lines of one of the page's tables, mappings with the names that the template reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.audit import promised_range
from benchmarks.report.groups import Group, Row
from lookm.registry import strategy_names

if TYPE_CHECKING:
    import pandas

Line = Mapping[Any, Any]
MOST_FAILURES = 60
"""So many are listed; all are counted."""


def budget_audits(group: Group) -> list[Line]:
    """What each run that has answers kept, as shares of the prompt in [0, 1].

    Keys: `row`; `nominal`, None for a number of tokens; `low`, `mean`, `high` over the samples; `over`, how many of
    `samples` kept more than the budget allows; `broken`, how many kept something else than the strategy promises (None
    where it is unknown here); `text`, the mean share of text in the prompts, which explains budgets of a text prior.
    """
    answered = group.frame[group.frame.error.isna()]
    parts = {str(run): rows for run, rows in answered.groupby("run", sort=False)}
    audits: list[Line] = []
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
        shares = {"low": float(kept.min()), "mean": float(kept.mean()), "high": float(kept.max())}
        over = {
            "over": int((kept > _allowed(row, rows.prompt_tokens) + 1e-9).sum()),
            "samples": len(rows),
            "broken": broken,
        }
        text = float((1 - rows.image_tokens / rows.prompt_tokens).mean())
        audits.append({"row": row, "nominal": row.budget, **shares, **over, "text": text})
    return audits


def _allowed(row: Row, prompt_tokens: pandas.Series) -> float | pandas.Series:
    """The share of each prompt that the budget allows."""
    if row.budget is not None:
        return row.budget
    if row.asked is None:
        return 1.0
    assert row.asked[2] is not None
    return (row.asked[2] / prompt_tokens).clip(upper=1)


def truncations(group: Group) -> list[Line]:
    """Of each dataset the samples that did not fit, those that lost images, and the mean losses.

    From the first run: all runs of a group have the same prompts. Keys: `dataset`, `task`, `samples`, `truncated`,
    `lost_images`, `images`, `tokens`.
    """
    rows = group.frame[group.frame.run == group.rows[0].run.name]
    cut = rows.assign(
        truncated=(rows.dropped_images > 0) | (rows.dropped_tokens > 0), lost_images=rows.dropped_images > 0
    )
    lines = cut.groupby("dataset", sort=False, as_index=False).agg(
        task=("task", "first"),
        samples=("task", "size"),
        truncated=("truncated", "sum"),
        lost_images=("lost_images", "sum"),
        images=("dropped_images", "mean"),
        tokens=("dropped_tokens", "mean"),
    )
    return list(lines.to_dict("records"))


def failures(group: Group) -> list[Line]:
    """The samples without an answer: `run`, `dataset`, `sample_id`, `error`."""
    failed = group.frame[group.frame.error.notna()]
    return list(failed[["run", "dataset", "sample_id", "error"]].to_dict("records"))


def origins(group: Group) -> list[Line]:
    """Where each run is from: what was computed when, on what, by which version of this program.

    `command` computes it again; empty where the strategy's YAML is not known here.
    """
    samples = group.frame.run.value_counts()
    return [_origin(row, int(samples.get(row.run.name, 0))) for row in group.rows]


def _origin(row: Row, samples: int) -> Line:
    about = row.run.about
    sessions = about.get("sessions") or [{}]
    last = sessions[-1]
    hardware = last.get("hardware") or {}
    machine = [hardware.get("accelerator") or hardware.get("processor"), f"{hardware.get('cores')} cores"]
    return {
        "row": row,
        "state": about.get("state", "unknown"),
        "samples": samples,
        "started": sessions[0].get("started", ""),
        "ended": last.get("ended", ""),
        "commits": list(dict.fromkeys(_commit(session.get("git") or {}) for session in sessions)),
        "weights": about.get("weights", ""),
        "hardware": ", ".join(str(part) for part in machine if part) if hardware else "",
        "versions": ", ".join(f"{name} {value}" for name, value in (last.get("versions") or {}).items()),
        "command": _command(row),
        "configuration": json.dumps(row.run.configuration, indent=2, ensure_ascii=False),
    }


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
