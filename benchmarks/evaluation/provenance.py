"""Where results come from: versions, commit, hardware, and fingerprints of data and weights."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow", "hydra-core", "rouge-score")
_SAMPLED = 1 << 20  # bytes read at the beginning, middle and end of a large file
_ROOT = Path(__file__).resolve().parent.parent.parent


def versions() -> dict[str, str]:
    """Versions of Python and of those packages that can change an answer or a score and are installed."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


@lru_cache(maxsize=1)
def git_state() -> dict[str, Any]:
    """Commit of this repository and whether tracked files differ from it; both None outside a repository."""
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if commit is None else bool(status)}


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Fingerprint of this program's sources: name and content of every file that can change an answer or a score."""
    summary = hashlib.sha256()
    for package in ("lookm", "baselines", "benchmarks"):
        for file in sorted((_ROOT / package).rglob("*.py")):
            summary.update(f"{file.relative_to(_ROOT).as_posix()} {file.stat().st_size}\n".encode())
            summary.update(file.read_bytes())
    return summary.hexdigest()[:16]


def hardware(device: str) -> dict[str, Any]:
    """The machine as far as it matters to speed: processor, cores, memory in bytes, accelerator."""
    import torch

    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        memory = None
    described: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_bytes": memory,
        "device": device,
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        described |= {"accelerator": properties.name, "accelerator_memory_bytes": properties.total_memory}
    return described


def weights_fingerprint(model_config: Mapping[str, Any]) -> str | None:
    """Fingerprint of a model's weights; None where they are not on this machine, or made up.

    Args:
        model_config: the fields of the model's YAML; its weights are in `path` (a folder, or a repository's copy in the
            Hugging Face cache), or shipped.
    """
    from lookm.models.source import weights_folder

    folder = weights_folder(model_config)
    return None if folder is None else weights_digest(folder)


def weights_digest(folder: Path) -> str:
    """Fingerprint of a model's folder: names, sizes and contents, of large files three samples of 1 MiB each."""
    summary = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix == ".md" or file.name.startswith("."):
            continue
        size = file.stat().st_size
        summary.update(f"{file.relative_to(folder).as_posix()} {size}\n".encode())
        for chunk in _chunks(file, size):
            summary.update(chunk)
    return summary.hexdigest()[:16]


def _chunks(file: Path, size: int) -> Iterable[bytes]:
    with file.open("rb") as stream:
        if size <= 32 * _SAMPLED:
            yield stream.read()
            return
        for offset in (0, (size - _SAMPLED) // 2, size - _SAMPLED):
            stream.seek(offset)
            yield stream.read(_SAMPLED)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
