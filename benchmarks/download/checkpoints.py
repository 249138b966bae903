"""Getting a model's checkpoint from the Hugging Face Hub: weights as safetensors, configuration and tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks.download.hub import RemoteFile, bars_on_terminals, digest_of, hub_errors, read_repository, require_space
from lookm.errors import LookmError
from lookm.registry import yaml_of

_SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")  # configurations and tokenizers; never .py
_WEIGHTS = {False: ".safetensors", True: ".bin"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this disk: its folder, the number of its files, their bytes, and how many were fetched now."""

    folder: Path
    files: int
    size: int
    fetched: int


def read_source(model: str) -> tuple[str, str] | None:
    """The repository of a model's checkpoint and its revision; None for a model that comes with this repository.

    Raises:
        LookmError: no such model, or its `path` is a folder on this disk.
    """
    fields = yaml_of("model", model)
    path = fields.get("path")
    if path is None:
        return None
    if str(path).count("/") != 1 or Path(str(path)).exists():
        raise LookmError(f"configs/model/{model}.yaml has the path {path!r}, which is no repository of the hub")
    return str(path), fields.get("revision") or "main"


def download_checkpoint(
    name: str, revision: str = "main", *, to: Path | None = None, bin_weights: bool = False
) -> Checkpoint:
    """Makes a checkpoint complete on this disk and checks every file of it; fetches only what is missing.

    Args:
        to: a folder for it; None is the hub's own cache (`HF_HOME`), where models are looked for by name.
        bin_weights: take `.bin` files, which are pickles, of a repository without safetensors.

    Raises:
        LookmError: no connection, no room, no weights of the kind asked for, or a file with a wrong checksum.
    """
    from huggingface_hub import constants, snapshot_download, utils

    repository = read_repository(name, "model", revision)
    files = select_files(name, repository.files.values(), bin_weights=bin_weights)
    fetch: Callable[..., Any] = partial(
        snapshot_download, name, revision=revision, allow_patterns=[file.name for file in files], local_dir=to
    )
    with hub_errors(name), bars_on_terminals(utils):
        missing = [item for item in fetch(dry_run=True) if item.will_download]
    folder = Path(constants.HF_HUB_CACHE) if to is None else to
    require_space({folder: sum(item.file_size for item in missing)}, f"{name} ({len(missing)} files)")
    with hub_errors(name), bars_on_terminals(utils):
        place = Path(fetch())
    _check(place, files)
    return Checkpoint(place, len(files), sum(file.size for file in files), len(missing))


def select_files(name: str, files: Iterable[RemoteFile], *, bin_weights: bool) -> list[RemoteFile]:
    """What a checkpoint needs of a repository: weights of one kind, configuration and tokenizer.

    Raises:
        LookmError: no weights of that kind; says where there are others.
    """
    files = list(files)
    suffixes = {PurePosixPath(file.name).suffix for file in files}
    if bin_weights and ".safetensors" in suffixes:
        raise LookmError(f"{name} has safetensors; leave --bin-weights out")
    if not bin_weights and ".safetensors" not in suffixes:
        if ".bin" not in suffixes:
            raise LookmError(f"{name} has neither safetensors nor .bin weights")
        raise LookmError(
            f"{name} has its weights only as .bin files, which are pickles; --bin-weights fetches them, and "
            "model.bin_weights=true reads them (tensors only)"
        )
    wanted = (*_SMALL, _WEIGHTS[bin_weights])
    at_the_top = [file for file in files if "/" not in file.name]  # folders hold training states and other formats
    return [file for file in at_the_top if file.name.endswith(wanted) and file.name != "training_args.bin"]


def _check(folder: Path, files: Iterable[RemoteFile]) -> None:
    """Compares every file with the hub's checksum; the cache itself only counts bytes.

    Raises:
        LookmError: a file is another; it is deleted, so that the next call fetches it again.
    """
    for file in files:
        path = folder / file.name
        if digest_of(path, file) != file.digest:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise LookmError(f"{path} has another checksum than the hub's and was deleted; run the same command again")
