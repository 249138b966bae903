"""LOOK-M (arXiv 2406.18139): compress the key/value cache of multimodal language models once, after the prompt."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookm.compression import compress, compress_rows
    from lookm.errors import BudgetError, LookmError
    from lookm.generation import look_once
    from lookm.registry import load_strategy, strategy_names
    from lookm.report import Report
    from lookm.session import Session
    from lookm.strategy import Strategy
    from lookm.sweep import SweepRow, generate_sweep

_HOMES = {
    "BudgetError": "errors",
    "CompressedRow": "storage.rows",
    "LookmError": "errors",
    "Report": "report",
    "Session": "session",
    "Strategy": "strategy",
    "SweepRow": "sweep",
    "compress": "compression",
    "compress_rows": "compression",
    "generate_sweep": "sweep",
    "load_strategy": "registry",
    "look_once": "generation",
    "strategy_names": "registry",
}

__all__ = [
    "BudgetError",
    "CompressedRow",
    "LookmError",
    "Report",
    "Session",
    "Strategy",
    "SweepRow",
    "compress",
    "compress_rows",
    "generate_sweep",
    "load_strategy",
    "look_once",
    "strategy_names",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: torch and transformers take seconds, `lookm.errors` nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lookm' has no attribute {name!r}")
    return getattr(import_module(f"lookm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
