"""Where weights are looked for, and what is said when they are not there. Nothing asks the network."""

import json
import os
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from lookm.errors import LookmError
from lookm.models.source import Source, find_folder, weights_folder

REPOSITORY = "llava-hf/llava-1.5-7b-hf"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path / "models--llava-hf--llava-1.5-7b-hf"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def complete(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


def source(path: str | Path, **fields: Any) -> Source:
    return Source(name="llava7b", path=path, **fields)


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find_folder(source(complete(tmp_path / "mine"))) == tmp_path / "mine"
    assert weights_folder({"path": str(tmp_path / "mine")}) == tmp_path / "mine"


def test_a_repository_is_its_snapshot_in_the_cache(cache: Path) -> None:
    snapshot = complete(cache / "snapshots" / ("a" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    assert find_folder(source(REPOSITORY)) == snapshot
    assert weights_folder({"path": REPOSITORY, "revision": "a" * 40}) == snapshot
    assert weights_folder({"path": REPOSITORY, "revision": "b" * 40}) is None


def test_without_a_main_branch_the_newest_snapshot_is_taken(cache: Path) -> None:
    for age, name in ((100, "a"), (0, "b"), (50, "c")):
        os.utime(complete(cache / "snapshots" / (name * 40)), (1e9 - age, 1e9 - age))
    (cache / "snapshots" / ("d" * 40)).mkdir()  # a download that was broken off
    assert weights_folder({"path": REPOSITORY}) == cache / "snapshots" / ("b" * 40)


def test_made_up_weights_have_no_folder(tmp_path: Path) -> None:
    assert weights_folder({"path": str(tmp_path), "weights": "random"}) is None


@pytest.mark.usefixtures("cache", "no_network")
def test_missing_weights_name_the_command_that_gets_them() -> None:
    with pytest.raises(LookmError) as error:
        find_folder(source(REPOSITORY))
    assert str(error.value) == (
        "the weights of llava7b (llava-hf/llava-1.5-7b-hf) are not on this machine, neither as a folder nor in Hugging "
        "Face's cache; get them with `lookm download model llava7b`, or name their folder with model.path=…"
    )
    assert weights_folder({"path": REPOSITORY}) is None


@pytest.mark.parametrize("path", ["nowhere", "/nowhere/at/all", "../llava", "a/b/c"])
def test_a_path_that_is_nothing_is_refused(path: str) -> None:
    with pytest.raises(LookmError, match=f"model.path={path} is neither a folder nor a repository"):
        find_folder(source(path))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "no model in .*: config.json is missing; copy them there"),
        ("model.safetensors", "no weights in .*: model.safetensors is missing"),
        ("tokenizer.json", "no tokenizer in .*: tokenizer.json or tokenizer.model is missing"),
    ],
)
def test_a_folder_without_a_part_is_refused(tmp_path: Path, missing: str, message: str) -> None:
    (complete(tmp_path) / missing).unlink()
    with pytest.raises(LookmError, match=message):
        find_folder(source(tmp_path))


def test_a_missing_weight_file_is_named(cache: Path) -> None:
    snapshot = complete(cache / "snapshots" / ("a" * 40))
    (snapshot / "model.safetensors").rename(snapshot / "model-1.safetensors")
    files = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with pytest.raises(LookmError, match=r"2 of 3 weight files are missing in .*: model-2.safetensors; `lookm"):
        find_folder(source(REPOSITORY))
    (snapshot / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(LookmError, match="is no index of weight files"):
        find_folder(source(REPOSITORY))


def test_pickled_weights_are_only_read_when_asked(tmp_path: Path) -> None:
    complete(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(LookmError, match=r"only as pytorch_model.*bin_weights=true"):
        find_folder(source(tmp_path))
    assert find_folder(source(tmp_path, bin_weights=True)) == tmp_path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": "none"}, "unknown weights 'none'; choose one of hub, random"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"device_map": "everywhere"}, "unknown device_map 'everywhere'; choose one of auto"),
        ({"quantization": "2bit", "device": "cuda"}, "unknown quantization '2bit'; choose one of 8bit, 4bit"),
        ({"quantization": "8bit"}, "quantization=8bit needs a CUDA device, not device=cpu"),
        ({"quantization": "4bit", "device": "cuda", "weights": "random"}, "quantization needs real weights"),
        ({"device_map": "auto", "weights": "random"}, "device_map needs real weights"),
    ],
)
def test_wrong_values_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(LookmError, match=message):
        source("x/y", **fields)


def test_a_path_that_no_disk_takes_is_one_line() -> None:
    with pytest.raises(LookmError, match="is neither a folder nor a repository"):
        find_folder(Source(name="llava7b", path="/" + "a" * 5000))
