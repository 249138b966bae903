"""Where files lie that are read by name: in the repository's folders, or beside the modules of an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(package: str, folder: str) -> Path:
    """A folder that the wheel carries inside a package, and the repository keeps elsewhere.

    Args:
        package: its place in the wheel, such as "lookm/configs".
        folder: its place in the repository, such as "configs".
    """
    inside = _PACKAGE.parent / package
    return inside if inside.is_dir() else _PACKAGE.parent / folder


CONFIGS = shipped("lookm/configs", "configs")
"""The YAMLs: `config.yaml` and the groups model, strategy, benchmark, logger, experiment, split, hydra."""
