"""Every notebook runs from its first cell to its last, in a fresh kernel, and says what it promises."""

from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parent.parent.parent / "notebooks"
SAYS = {
    "01_look_once.ipynb": ["the badge of ada 7", "nominal 20.0%", "image/png"],
    "02_reproduce_tables.ipynb": ["tp_pmerge", "MileBench-mini", "realised_budget", "report.html"],
    "03_your_own_strategy.ipynb": ["torch.Size([1, 4, 120, 64])", "evenly (paper", "its definition promises"],
    "05_our_method.ipynb": ["kept by the strategy", "the badge of", "best other", "image/png"],
}
SHOWN = {"05_our_method.ipynb"}
"""Notebooks whose outputs are part of what they tell, and are committed."""


def execute(path: Path, folder: Path) -> Any:
    """The notebook with its outputs; a cell that raises fails the test."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    return notebook


def test_every_notebook_is_tested() -> None:
    assert sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")) == sorted(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_notebook_runs_and_says(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    notebook = execute(NOTEBOOKS / name, tmp_path)
    told = str([output for cell in notebook.cells for output in cell.get("outputs", [])])
    for text in SAYS[name]:
        assert text in told, f"{text!r} is not in the outputs"


@pytest.mark.parametrize("name", sorted(SAYS.keys() - SHOWN))
def test_notebook_is_committed_without_outputs(name: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
