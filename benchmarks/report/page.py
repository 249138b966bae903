"""Puts the report together: one HTML page that needs no network and no other file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.provenance import git_state
from benchmarks.milebench import PROTOCOLS
from benchmarks.report.audits import MOST_FAILURES, budget_audits, failures, origins, truncations
from benchmarks.report.changes import change_chart, count_changes, place_chart
from benchmarks.report.charts import bytes_chart, curve_chart, plane_chart, time_chart
from benchmarks.report.groups import Budget, Group
from benchmarks.report.questions import side_by_side
from benchmarks.report.rerun import load_model, sample_view
from benchmarks.report.samples import SampleView, named_samples, telling_samples
from benchmarks.report.scores import headline, score_table
from benchmarks.tables.frame import budget_text
from benchmarks.tables.styles import style_of
from benchmarks.tables.table import percent
from lookm.errors import LookmError

if TYPE_CHECKING:
    from jinja2 import Template

    from lookm.models.backbone import Backbone

NOT_ASKED = "--heat no leaves it out"


@dataclass(frozen=True)
class Part:
    """One group on the page.

    Attributes:
        group: its runs.
        key: prefix of its anchors.
        budget: α1 and α2 of the tables and samples that show one budget.
        views: its samples.
    """

    group: Group
    key: str
    budget: Budget
    views: Sequence[SampleView]


def make_parts(groups: Sequence[Group], *, samples: str, heat: str) -> list[Part]:
    """One part of the page for each group.

    Args:
        groups: the runs.
        samples: how many samples to show of each group, or their names, `DATASET/ID`, separated by commas.
        heat: "yes", "no" or "auto": whether models are run again to see what was kept.

    Raises:
        LookmError: samples that no group has.
    """
    names = [] if samples.isdigit() else [name.strip() for name in samples.split(",")]
    named = [named_samples(groups, name) for name in names]
    parts = []
    for number, group in enumerate(groups):
        budget = group.budgets[0] if group.budgets else None
        chosen = [own[number] for own in named if number in own]
        if not names:
            chosen = telling_samples(group, budget, int(samples))
        model = _model(group, heat) if chosen else NOT_ASKED
        views = [sample_view(group, budget, dataset, sample_id, model) for dataset, sample_id in chosen]
        parts.append(Part(group, f"part{number + 1}", budget, views))
    return parts


def _model(group: Group, heat: str) -> Backbone | str:
    """The group's model, or why it is not run again."""
    if heat == "no":
        return NOT_ASKED
    try:
        return load_model(group, any_size=heat == "yes")
    except LookmError as error:
        return str(error)


def render(parts: Sequence[Part]) -> str:
    """The page's HTML. All that models, data and runs say is escaped."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    contents = [_fill(part) for part in parts]
    data = {
        "charts": {chart["id"]: chart["chart"].views for part in contents for chart in part["charts"].values()},
        "tables": {table["id"]: table["table"].differences for part in contents for table in part["tables"]},
        "samples": {sample["id"]: sample["view"].data for part in contents for sample in part["samples"]},
    }
    return template("report").render(
        parts=contents,
        asked=side_by_side([part.group for part in parts]),
        protocols=PROTOCOLS,
        plotly=Markup(get_plotlyjs()),
        data=Markup(script_json(data)),
        **made(),
    )


def template(name: str) -> Template:
    """A page's template, with the style that all pages share and its own script in it; what is filled in is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("benchmarks.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "percent": percent,
        "budget_text": lambda asked: budget_text(*asked),
        "colour": lambda strategy: style_of(strategy).colour,
    }
    folder = files("benchmarks.report").joinpath("templates")
    for place, file in (("style", "report.css"), ("script", f"{name}.js")):
        environment.globals[place] = Markup(folder.joinpath(file).read_text(encoding="utf-8"))
    return environment.get_template(f"{name}.html.j2")


def made() -> dict[str, str]:
    """When a page is made, and by which commit."""
    commit = (git_state()["commit"] or "unknown")[:10]
    return {"made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "commit": commit}


def script_json(value: Any) -> str:
    """JSON that may stand in a script element, whatever texts are in it."""
    from plotly.utils import PlotlyJSONEncoder

    text = json.dumps(value, cls=PlotlyJSONEncoder, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _fill(part: Part) -> dict[str, Any]:
    """All that the template shows of one group."""
    group, budget = part.group, part.budget
    changes = count_changes(group)
    charts = [
        curve_chart(group),
        plane_chart(group),
        bytes_chart(group),
        time_chart(group),
        change_chart(group, changes, budget),
        place_chart(group, changes, budget),
    ]
    budgets = [budget, *(other for other in group.budgets if other != budget)]
    colours = {row.strategy: style_of(row.strategy).colour for row in group.rows}
    failed = failures(group)
    return {
        "group": group,
        "key": part.key,
        "headline": headline(group),
        "budgets": budgets,
        "tables": [
            {"id": f"{part.key}-{name}-{place}", "place": place, "table": score_table(group, pair, name, colours)}
            for place, pair in enumerate(budgets)
            for name in PROTOCOLS
        ],
        "charts": {chart.name: {"id": f"{part.key}-{chart.name}", "chart": chart} for chart in charts if chart},
        "audits": budget_audits(group),
        "truncations": truncations(group),
        "failures": failed[:MOST_FAILURES],
        "n_failed": len(failed),
        "origins": origins(group),
        "samples": [{"id": f"{part.key}-sample{number}", "view": view} for number, view in enumerate(part.views)],
    }
