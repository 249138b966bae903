"""The command `lookm`: `lookm COMMAND …` starts one of the programs of this folder.

Nothing is imported before it is known which: `lookm --help` and a mistyped command need neither torch nor Hydra.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from benchmarks.guard import guarded

# command: (module, arguments put first, what it does)
COMMANDS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "demo": ("demo", (), "full, h2o and tp_pmerge from one prefill, on the tiny model"),
    "run": ("run", (), "one model, strategy and budget over a benchmark (python run.py)"),
    "sweep": ("run", ("-m",), "many strategies and budgets, compared in one table (python run.py -m)"),
    "chat": ("chat", (), "pictures are encoded once, questions answered from what was kept"),
    "leaderboard": ("leaderboard", (), "every strategy from one prefill, best first; runs as one sortable page"),
    "table": ("tables", (), "a table of the paper beside ours, with intervals"),
    "figure": ("figures", (), "the paper's budget curves"),
    "report": ("report", (), "one HTML page about runs"),
    "compare": ("compare", (), "any run against any other, sample by sample"),
    "score": ("score", (), "anybody's MileBench results"),
    "plan": ("plan", (), "what a sweep would cost, and what is done of it"),
    "verify": ("verify", (), "computes some of a run again and compares"),
    "lmms-tasks": ("lmms_tasks", (), "writes MileBench as tasks of lmms-eval"),
    "download": ("download", (), "MileBench and the models' weights"),
    "inspect": ("inspect_data", (), "looks through a benchmark's folder for what is wrong"),
    "kept": ("pictures", ("kept",), "draws what strategies keep of a prompt"),
    "attention": ("pictures", ("attention",), "draws where attention goes, by modality"),
    "head-scores": ("head_scores", (), "which heads of a model look at pictures: the file that sparsemm needs"),
    "memory": ("model_memory", (), "GPU memory that each model needs under each strategy"),
    "efficiency": ("efficiency", (), "measures prefill, decoding, sweeps and capacity"),
    "device-check": ("device_check", (), "checks the engine and its kernels on this machine's device"),
    "log": ("log", (), "sends finished runs to wandb or TensorBoard"),
    "dashboard": ("dashboard", (), "wandb workspace and report of logged runs"),
}

# Packages that the extra `harness` does not bring → the extra that does.
EXTRAS = {"jinja2": "report", "plotly": "report", "tensorboard": "tensorboard", "wandb": "wandb"}

WRONG_INPUT = 2


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status of the command, 2 where there is none of that name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        return _refuse(f"unknown command {name!r}; {_nearest(name)}")
    module, first, _ = COMMANDS[name]
    sys.argv[0] = f"lookm {name}"
    try:
        return import_module(f".{module}", __package__).main([*first, *rest]) or 0
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing in sys.modules or missing == str(__package__).partition(".")[0]:
            raise  # a fault of this program, not of the installation
        extra = EXTRAS.get(missing, "harness")
        return _refuse(f"`lookm {name}` needs the package {missing}: pip install 'lookm-harness[{extra}]'")


def overview() -> str:
    """What `lookm --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, _, what) in COMMANDS.items()]
    return "\n".join(["usage: lookm COMMAND …          (lookm COMMAND --help tells the rest)", "", *lines])


def _nearest(name: str) -> str:
    close = get_close_matches(name, COMMANDS, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(COMMANDS)}"


def _refuse(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())
