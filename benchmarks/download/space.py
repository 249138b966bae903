"""Room on the disk, asked for before something large is written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lookm.errors import LookmError


def require_space(needs: Mapping[Path, int], purpose: str) -> None:
    """Makes sure that everything fits.

    Args:
        needs: folder (it need not exist yet) → bytes that will be written there; folders on one disk are added up.
        purpose: what is to be written, for the message.

    Raises:
        LookmError: a disk has less room than is needed on it; says how much of both.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needs.items():
        there = existing(folder)
        device = there.stat().st_dev
        disks[device] = (there, disks.get(device, (there, 0))[1] + size)
    for folder, size in disks.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise LookmError(
                f"{purpose} needs {shown_bytes(size)}, but the disk of {folder} has {shown_bytes(free)} free; "
                "make room, or choose a folder on another disk"
            )


def existing(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    path = folder.resolve()
    while not path.exists():
        path = path.parent
    return path


def shown_bytes(size: float) -> str:
    """A number of bytes for people, in decimal units as disks are sold: "17.2 GB"."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
