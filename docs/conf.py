"""Sphinx: `sphinx-build -W docs docs/_build`, without a network."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import strategy_table

project = "LOOK-M, made to run"
author = "the authors of this repository"
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "generated"]
html_theme = "furo"
html_title = project
html_copy_source = html_show_sourcelink = False

strategy_table.write(Path(__file__).parent / "generated" / "strategies.md")
