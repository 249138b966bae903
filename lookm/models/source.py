"""Where a backbone's weights are: a local folder, or a repository's snapshot in the local Hugging Face cache.

Nothing here touches the network: what is missing is named, with the command that gets it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lookm.errors import LookmError, check_one_of

DTYPES = ("float32", "bfloat16", "float16")
QUANTIZATIONS = ("8bit", "4bit")
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where weights come from and how they are held.

    Attributes:
        name: the model's name in the configuration, for messages.
        path: a local folder, or a repository of the Hugging Face Hub.
        revision: commit, tag or branch of the repository; None is its main branch.
        weights: `hub` reads them from `path`; `random` makes up the architecture's, at full size.
        bin_weights: whether `pytorch_model*.bin` (pickle files) may be read where there is no safetensors; only
            tensors are unpickled, never code.
        device_map: how layers are spread over several devices (`auto`, …); None keeps all on `device`.
        quantization: `8bit` or `4bit` for the language model's weights; None holds them in `dtype`.

    Raises:
        LookmError: a value that is not allowed, or two that exclude each other.
    """

    name: str
    path: str | Path
    revision: str | None = None
    weights: str = "hub"
    bin_weights: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    device_map: str | None = None
    quantization: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of("weights", self.weights, ("hub", "random"))
        check_one_of("dtype", self.dtype, DTYPES)
        if self.device_map is not None:
            check_one_of("device_map", self.device_map, DEVICE_MAPS)
        if self.quantization is not None:
            check_one_of("quantization", self.quantization, QUANTIZATIONS)
            if self.weights == "random":
                raise LookmError("quantization needs real weights; drop it or model.weights=random")
            if not self.device.startswith("cuda"):
                raise LookmError(
                    f"quantization={self.quantization} needs a CUDA device, not device={self.device}; drop it or use "
                    "device=cuda"
                )
        if self.device_map is not None and self.weights == "random":
            raise LookmError("device_map needs real weights; drop it or model.weights=random")

    def labelled(self, label: str) -> str:
        """What tables call a model of this source, so that made-up weights are never taken for real ones."""
        return f"{label} (random weights)" if self.weights == "random" else label


def weights_folder(config: Mapping[str, Any]) -> Path | None:
    """The folder that holds a model's weights; None where there is none yet, or the weights are made up.

    Args:
        config: fields of a model's YAML: `path`, and if there are any `revision` and `weights`. Without a path it is
            what the FOLDERS of its `_target_`'s module say of its `shipped`, or the first of them.
    """
    path = config.get("path")
    if config.get("weights") == "random":
        return None
    if path is None:
        module = str(config.get("_target_", "")).rpartition(".")[0]
        folders = getattr(import_module(module), "FOLDERS", {}) if module else {}
        return folders.get(config.get("shipped", next(iter(folders), None)))
    local = Path(path).expanduser()
    is_folder = os.path.isdir(local)  # noqa: PTH112 (False, and no exception, for a name that is too long)
    return local if is_folder else _snapshot(str(path), config.get("revision"))


def find_folder(source: Source) -> Path:
    """The folder of a source's weights, complete.

    Raises:
        LookmError: no such folder, nothing downloaded, or files missing; the message says how to get them.
    """
    folder = weights_folder({"path": source.path, "revision": source.revision})
    if folder is None:
        if not _REPOSITORY.fullmatch(str(source.path)):
            raise LookmError(
                f"model.path={source.path} is neither a folder nor a repository of the Hugging Face Hub (owner/name)"
            )
        raise LookmError(
            f"the weights of {source.name} ({source.path}) are not on this machine, neither as a folder nor in Hugging "
            f"Face's cache; get them with `lookm download model {source.name}`, or name their folder with "
            "model.path=…"
        )
    _check_complete(folder, source)
    return folder


def uses_bin(folder: Path) -> bool:
    """Whether a folder's weights are only there as pickle files."""
    return not _weight_files(folder, "model*.safetensors") and bool(_weight_files(folder, "pytorch_model*.bin"))


def _snapshot(repo_id: str, revision: str | None) -> Path | None:
    """The repository's folder in the local cache; without a revision main's, or else the newest that is there."""
    if not _REPOSITORY.fullmatch(repo_id):
        return None
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    try:
        return Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError):
        if revision is not None:
            return None
    snapshots = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model") / "snapshots"
    found = [folder for folder in snapshots.glob("*") if (folder / "config.json").is_file()]
    return max(found, key=lambda folder: folder.stat().st_mtime, default=None)


def _check_complete(folder: Path, source: Source) -> None:
    """Raises LookmError unless the configuration, all weights and a tokenizer are there."""
    downloaded = folder != Path(source.path).expanduser()
    again = f"`lookm download model {source.name}` goes on from there" if downloaded else "copy them there"
    if not (folder / "config.json").is_file():
        raise LookmError(f"no model in {folder}: config.json is missing; {again}")
    if uses_bin(folder) and not source.bin_weights:
        raise LookmError(
            f"{folder} holds its weights only as pytorch_model*.bin (pickle files); add model.bin_weights=true to "
            "read their tensors"
        )
    index = folder / ("pytorch_model.bin.index.json" if uses_bin(folder) else "model.safetensors.index.json")
    if index.is_file():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LookmError(f"{index} is no index of weight files ({type(error).__name__}); {again}") from None
        missing = sorted(file for file in named if not (folder / file).is_file())
        if missing:
            raise LookmError(
                f"{len(missing)} of {len(named)} weight files are missing in {folder}: {missing[0]}; {again}"
            )
    elif not uses_bin(folder) and not _weight_files(folder, "model*.safetensors"):
        raise LookmError(f"no weights in {folder}: model.safetensors is missing; {again}")
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model")):
        raise LookmError(f"no tokenizer in {folder}: tokenizer.json or tokenizer.model is missing; {again}")


def _weight_files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) + sorted(folder.glob(f"{pattern}.index.json"))
