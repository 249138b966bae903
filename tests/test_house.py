"""The rooms of the house import only what is below them: scripts → report → tables → evaluation → milebench → lookm."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS: tuple[tuple[str, ...], ...] = (
    ("lookm",),
    ("baselines", "benchmarks.files", "benchmarks.benchmark", "benchmarks.download", "benchmarks.guard"),
    ("benchmarks.milebench",),
    ("benchmarks.mini", "benchmarks.lmms_eval"),
    ("benchmarks.evaluation",),
    ("benchmarks.composition",),
    ("benchmarks.tables",),
    ("benchmarks.report", "benchmarks.planning"),
    ("benchmarks.command_line", "benchmarks.chat"),
    ("benchmarks.sweep_callback",),
    ("scripts", "hydra_plugins"),
    ("run",),
)
"""From the ground up. What is on one floor imports nothing of the others there."""
PACKAGES = ("lookm", "baselines", "benchmarks", "scripts", "hydra_plugins")
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    """The room that a module is in: itself or its first two names within `benchmarks`, its package elsewhere."""
    names = module.split(".")
    return ".".join(names[:2]) if names[0] == "benchmarks" else names[0]


def imports_of(path: Path) -> Iterator[str]:
    """Modules of this repository that a file imports, anywhere in it, also for its types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            whole = node.module == "benchmarks"
            names = [f"benchmarks.{alias.name}" for alias in node.names] if whole else [node.module]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = sorted([*(file for package in PACKAGES for file in (ROOT / package).rglob("*.py")), ROOT / "run.py"])


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(module_of(file)) for file in FILES} - {"benchmarks"}
    assert rooms <= set(FLOOR_OF), f"say in FLOORS where {sorted(rooms - set(FLOOR_OF))} belong"


@pytest.mark.parametrize("room", sorted(FLOOR_OF))
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    upward = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in FILES
        if room_of(module_of(file)) == room
        for module in imports_of(file)
        if room_of(module) not in (room, "benchmarks") and FLOOR_OF[room_of(module)] >= FLOOR_OF[room]
    ]
    assert not upward


def test_loggers_read_run_folders_and_no_benchmark() -> None:
    allowed = (
        "benchmarks.evaluation.",
        "benchmarks.files",
        "benchmarks.milebench.scoring",
        "benchmarks.milebench.images",
        "lookm.errors",
    )
    above = ("benchmarks.evaluation.examples", "benchmarks.evaluation.results", "benchmarks.evaluation.active")
    for file in (ROOT / "benchmarks" / "evaluation" / "loggers").glob("*.py"):
        for module in imports_of(file):
            assert module.startswith(allowed), f"{file.name} imports {module}"
            assert not module.startswith(above), f"{file.name} imports {module}"
