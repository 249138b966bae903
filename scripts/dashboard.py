"""Builds the wandb workspace and report of this project: scores, costs, tasks and samples of logged runs.

    python -m scripts.dashboard                                    # offline: prints the specification as JSON
    python -m scripts.dashboard --output dashboard.json            # offline: writes it
    python -m scripts.dashboard --mode online --entity my-team     # saves both in wandb's account

Runs get there by `python run.py logger=wandb logger.mode=online`, or later by `wandb sync results/wandb/offline-run-*`.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.guard import guarded
from lookm.errors import LookmError


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
    from benchmarks.evaluation.loggers.dashboard import make_report, make_workspace, specification
    from benchmarks.files import write_json

    entity = options.entity or "entity"
    if options.mode == "online":
        for made in (make_workspace(entity, options.project), make_report(entity, options.project, online=True)):
            try:
                made.save()
            except Exception as error:  # whatever wandb, the network or the account may raise
                reason = " ".join(str(error).split()) or type(error).__name__
                raise LookmError(f"wandb did not save it: {reason} (wandb login, --entity, --project)") from None
            print(f"saved: {made.url}")
        return
    found = specification(entity, options.project)
    if options.output is None:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    try:
        write_json(options.output, found)
    except OSError as error:
        raise LookmError(f"{options.output} cannot be written ({error.strerror}); choose another --output") from None
    print(f"written: {options.output}")


if __name__ == "__main__":
    sys.exit(main())
