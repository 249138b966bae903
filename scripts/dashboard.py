"""Builds the wandb workspace and report of this project: scores, costs, tasks and samples of logged runs.

    python -m scripts.dashboard                                    # offline: prints the specification as JSON
    python -m scripts.dashboard --output dashboard.json            # offline: writes it
    python -m scripts.dashboard --mode online --entity my-team     # saves both in wandb's account

Runs get there by `lookm run logger=wandb logger.mode=online`, or later by `wandb sync results/wandb/offline-run-*`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.guard import guarded
from benchmarks.milebench.scoring import PROTOCOLS
from benchmarks.milebench.taxonomy import TASKS
from lookm.errors import LookmError, message_of

COSTS = ("realised_budget", "kept_bytes", "changed_answers", "decode_ms")


@guarded
def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("offline", "online"), default="offline", help="default: offline")
    parser.add_argument("--project", default="lookm", help="wandb project, as in logger.project (default: lookm)")
    parser.add_argument("--entity", help="wandb team or user; needed online")
    parser.add_argument("--output", type=Path, help="a file for the specification, instead of printing it")
    options = parser.parse_args(argv)
    build(options)
    return 0


def build(options: argparse.Namespace) -> None:
    """Print, write or save.

    Raises:
        LookmError: no package, no entity, no account, or a file that cannot be written.
    """
    if options.mode == "online" and not options.entity:
        raise LookmError("--mode online needs --entity, the wandb team or user whose project it is")
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise LookmError('wandb_workspaces is missing; pip install "lookm-harness[wandb]"') from None
    from benchmarks.files import write_json, writing

    entity = options.entity or "entity"
    if options.mode == "online":
        for made in (make_workspace(entity, options.project), make_report(entity, options.project, online=True)):
            try:
                made.save()
            except Exception as error:  # whatever wandb, the network or the account may raise
                reason = message_of(error)
                raise LookmError(f"wandb did not save it: {reason} (wandb login, --entity, --project)") from None
            print(f"saved: {made.url}")
        return
    found = specification(entity, options.project)
    if options.output is None:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    with writing(options.output, "--output"):
        write_json(options.output, found)
    print(f"written: {options.output}")


def sections() -> list[tuple[str, str, list[Any]]]:
    """What both show: name, a sentence, and panels of `wandb_workspaces`."""
    import wandb_workspaces.reports.v2 as panels

    def bars(title: str, metric: str) -> Any:
        return panels.BarPlot(title=title, metrics=[panels.SummaryMetric(metric)], orientation="h")

    trade_offs = [  # one mark a run
        panels.ScatterPlot(
            title=f"official score against {cost}",
            x=panels.SummaryMetric(f"mean/{cost}"),
            y=panels.SummaryMetric("mean/official"),
        )
        for cost in ("kept_bytes", "decode_ms")
    ]
    scores = [bars(f"mean, {protocol}", f"mean/{protocol}") for protocol in PROTOCOLS]
    tasks = [bars(f"{task}, {protocol}", f"task/{task}/{protocol}") for task in TASKS for protocol in PROTOCOLS]
    read = "Means of the task codes, under MileBench's own evaluator (official) and one that reads better."
    cost = "Budgets as they were realised, bytes of a sample's cache, and the share of answers that changed."
    return [
        ("Scores", read, [*scores, *trade_offs]),
        ("Costs", cost, [bars(name, f"mean/{name}") for name in COSTS]),
        ("Tasks", "Each task code under both protocols.", tasks),
        ("Samples", "Questions, answers and pictures.", [panels.WeavePanelSummaryTable(table_name="samples")]),
    ]


def make_workspace(entity: str, project: str) -> Any:
    """Scores by task, costs, and the table of samples; runs grouped by strategy.

    Returns:
        A `wandb_workspaces.workspaces.Workspace`, not saved.
    """
    import wandb_workspaces.workspaces as workspaces

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="LOOK-M",
        sections=[
            workspaces.Section(name=name, panels=panels, is_open=name != "Tasks") for name, _, panels in sections()
        ],
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Config("identity.strategy.name")]),
    )


def make_report(entity: str, project: str, *, online: bool) -> Any:
    """A wandb report: what compressing costs and changes, with the runs it is made from.

    Args:
        online: whether the runs of that project are asked for, which needs an account; else the report's own
            project is meant.

    Returns:
        A `wandb_workspaces.reports.v2.Report`, not saved.
    """
    import wandb_workspaces.reports.v2 as reports

    owner, place = (entity, project) if online else ("", "")
    blocks: list[Any] = [reports.TableOfContents()]
    for name, sentence, panels in sections():
        runs = reports.Runset(entity=owner, project=place, name="runs", groupby=["identity.strategy.name"])
        blocks += [reports.H1(name), reports.P(sentence), reports.PanelGrid(runsets=[runs], panels=panels)]
    description = "Cache compression strategies on one model and benchmark (arXiv 2406.18139)."
    return reports.Report(
        entity=entity, project=project, title="LOOK-M", description=description, blocks=blocks, width="fluid"
    )


def specification(entity: str, project: str) -> dict[str, Any]:
    """Workspace and report as the JSON that would be saved; made without network and account."""
    made = {"workspace": make_workspace(entity, project), "report": make_report(entity, project, online=False)}
    return {
        name: item._to_model().model_dump(mode="json", by_alias=True, exclude_none=True) for name, item in made.items()
    }


if __name__ == "__main__":
    sys.exit(main())
