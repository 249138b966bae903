"""LOOK-M (arXiv 2406.18139): compress the key/value cache of multimodal language models once, after the prompt."""

from lookm.compression import compress, compress_rows
from lookm.errors import BudgetError, LookmError
from lookm.generation import Session, look_once
from lookm.registry import load_strategy, strategy_names
from lookm.report import Report
from lookm.strategy import CompressedRow, Strategy

__all__ = [
    "BudgetError",
    "CompressedRow",
    "LookmError",
    "Report",
    "Session",
    "Strategy",
    "compress",
    "compress_rows",
    "load_strategy",
    "look_once",
    "strategy_names",
]
