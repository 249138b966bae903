"""Puts the report together: one HTML page that needs no network and no other file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from benchmarks.evaluation.provenance import git_state
from benchmarks.milebench import PROTOCOLS
from benchmarks.report.audits import budget_audits, failures, origins, truncations
from benchmarks.report.change_charts import change_chart, place_chart
from benchmarks.report.changes import changes
from benchmarks.report.charts import Chart, cost_chart, curve_chart, difference_chart, plane_chart
from benchmarks.report.palette import look_of
from benchmarks.report.scenes import Scene
from benchmarks.report.score_tables import COSTS, headline, score_table
from benchmarks.report.views import SampleView
from benchmarks.run_table import percent


@dataclass(frozen=True)
class Part:
    """One scene on the page.

    Attributes:
        scene: its runs.
        key: prefix of its anchors.
        budget: α1 and α2 of the tables and samples that show one budget.
        views: its samples.
    """

    scene: Scene
    key: str
    budget: tuple[float, float] | None
    views: Sequence[SampleView]


def render(parts: Sequence[Part]) -> str:
    """The page's HTML. All that models, data and runs say is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("benchmarks.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"percent": percent, "colour": lambda strategy: look_of(strategy).colour}
    folder = files("benchmarks.report").joinpath("templates")
    filled = [_fill(part) for part in parts]
    data = {
        "charts": {chart["id"]: chart["views"] for part in filled for chart in part["charts"].values()},
        "samples": {sample["id"]: sample["view"].data for part in filled for sample in part["samples"]},
    }
    return environment.get_template("report.html.j2").render(
        parts=filled,
        costs=COSTS,
        protocols=PROTOCOLS,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=(git_state()["commit"] or "unknown")[:10],
        style=Markup(folder.joinpath("report.css").read_text(encoding="utf-8")),
        script=Markup(folder.joinpath("report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
        data=Markup(script_json(data)),
    )


def script_json(value: Any) -> str:
    """JSON that may stand in a script element, whatever texts are in it."""
    from plotly.utils import PlotlyJSONEncoder

    text = json.dumps(value, cls=PlotlyJSONEncoder, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _fill(part: Part) -> dict[str, Any]:
    """All that the template shows of one scene."""
    scene, budget = part.scene, part.budget
    found = changes(scene)
    charts = [
        difference_chart(scene, budget),
        curve_chart(scene),
        plane_chart(scene),
        cost_chart(scene, "kept_bytes"),
        cost_chart(scene, "decode_ms"),
        change_chart(scene, found, budget),
        place_chart(scene, found, budget),
    ]
    budgets = [budget, *(other for other in scene.budgets if other != budget)]
    tables = [{name: score_table(scene, pair, name, found) for name in PROTOCOLS} for pair in budgets]
    failed, n_failed = failures(scene)
    return {
        "scene": scene,
        "key": part.key,
        "budget": budget,
        "headline": headline(scene),
        "tables": tables,
        "charts": {chart.name: _shown(part, chart) for chart in charts if chart is not None},
        "audits": budget_audits(scene),
        "truncations": truncations(scene),
        "failures": failed,
        "n_failed": n_failed,
        "origins": [
            {"origin": origin, "configuration": json.dumps(origin.configuration, indent=2, ensure_ascii=False)}
            for origin in origins(scene)
        ],
        "samples": [{"id": f"{part.key}-sample{number}", "view": view} for number, view in enumerate(part.views)],
    }


def _shown(part: Part, chart: Chart) -> dict[str, Any]:
    return {
        "id": f"{part.key}-{chart.name}",
        "title": chart.title,
        "note": chart.note,
        "choice": chart.choice,
        "views": chart.views,
    }
