"""Sphinx: `sphinx-build -W docs docs/_build`, without a network."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent

project = "LOOK-M, made to run"
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "generated"]
html_theme = "furo"
html_title = project
html_copy_source = html_show_sourcelink = html_show_copyright = False


def setup(_: Sphinx) -> None:
    """Writes what is generated, before any page is read."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import strategy_table

    strategy_table.write(HERE / "generated")
