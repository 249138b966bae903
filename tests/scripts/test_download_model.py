"""A model's checkpoint is fetched without pickles and code, checked, and not fetched twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from benchmarks.download import hub as hub_module
from benchmarks.download.checkpoints import download_checkpoint, read_source
from lookm.errors import LookmError
from lookm.models.source import weights_folder
from scripts.download import main
from tests.local_hub import LocalHub, point_library_at, serving

NAME = "llava-hf/llava-1.5-7b-hf"
SAFE = {
    "config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "model-00001-of-00002.safetensors": b"first" * 99,
    "model-00002-of-00002.safetensors": b"second" * 99,
}
OTHER = {"README.md": b"#", "modeling.py": b"import os", "pytorch_model.bin": b"pickle", "onnx/model.safetensors": b"o"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with serving() as local:
        local.repositories[f"models/{NAME}"] = {**SAFE, **OTHER}
        point_library_at(local, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        yield local


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_checkpoint_is_safetensors_configuration_and_tokenizer(
    hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "llava7b", "--to", str(tmp_path / "weights")]) == 0
    assert contents(tmp_path / "weights") == SAFE
    said = capsys.readouterr().out
    assert "4 fetched now" in said
    assert said.rstrip().endswith(f"`lookm run model=llava7b model.path={tmp_path / 'weights'}`")


def test_the_cache_is_where_models_are_found_by_name(hub: LocalHub, tmp_path: Path) -> None:
    found = download_checkpoint(NAME)
    assert found.folder.is_relative_to(tmp_path / "cache")
    assert contents(found.folder) == SAFE
    assert weights_folder({"path": NAME}) == found.folder


def test_a_second_call_fetches_nothing_and_checks_everything(
    hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download_checkpoint(NAME).fetched == 4
    asked = [request for request in hub.requests if request[0] == "GET" and "/api/" not in request[1]]
    assert main(["model", "llava7b"]) == 0
    assert "nothing to fetch, all checksums right" in capsys.readouterr().out
    assert [request for request in hub.requests if request[0] == "GET" and "/api/" not in request[1]] == asked


def test_a_file_with_a_wrong_checksum_is_deleted_and_fetched_again(hub: LocalHub, tmp_path: Path) -> None:
    hub.corrupt.add("model-00001-of-00002.safetensors")
    with pytest.raises(LookmError, match=r"model-00001-of-00002.safetensors has another checksum than the hub's"):
        download_checkpoint(NAME)
    hub.corrupt.clear()
    assert contents(download_checkpoint(NAME).folder) == SAFE


def test_weights_that_are_only_pickles_need_a_switch(hub: LocalHub, tmp_path: Path) -> None:
    pickles = {"config.json": b"{}", "pytorch_model.bin": b"p", "training_args.bin": b"t", "code.py": b""}
    hub.repositories[f"models/{NAME}"] = pickles
    with pytest.raises(LookmError, match=r"only as .bin files, which are pickles; --bin-weights fetches them"):
        download_checkpoint(NAME, to=tmp_path / "weights")
    assert main(["model", "llava7b", "--to", str(tmp_path / "weights"), "--bin-weights"]) == 0
    assert contents(tmp_path / "weights") == {"config.json": b"{}", "pytorch_model.bin": b"p"}
    hub.repositories[f"models/{NAME}"] = SAFE
    with pytest.raises(LookmError, match="has safetensors; leave --bin-weights out"):
        download_checkpoint(NAME, bin_weights=True)
    hub.repositories[f"models/{NAME}"] = {"config.json": b"{}"}
    with pytest.raises(LookmError, match=r"neither safetensors nor .bin weights"):
        download_checkpoint(NAME)


def test_too_little_room_is_said_before_anything_is_fetched(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(LookmError, match=rf"{NAME} \(4 files\) needs 1.1 kB, but the disk of .* has 100 bytes free"):
        download_checkpoint(NAME)
    assert not hub.downloads("model-00001-of-00002.safetensors")


def test_a_repository_or_revision_that_does_not_exist_is_named(
    hub: LocalHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories.clear()
    assert main(["model", "llava7b"]) == 2
    assert capsys.readouterr().err == f"error: {hub.endpoint} has no {NAME}, or it is private (then: `hf auth login`)\n"
    hub.repositories[f"models/{NAME}"] = SAFE
    assert main(["model", "llava7b", "--revision", "v9"]) == 2
    assert "has no such revision" in capsys.readouterr().err


def test_where_a_checkpoint_comes_from_is_in_the_models_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_source("llava7b") == (NAME, "main")
    assert main(["model", "tiny"]) == 0
    assert capsys.readouterr().out == "tiny comes with this repository; nothing to do\n"
    assert main(["model", "gpt"]) == 2
    assert "model 'gpt' is unknown; choose one of" in capsys.readouterr().err
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.yaml").write_text("path: /models/own\n")
    monkeypatch.setattr("lookm.registry.CONFIGS", tmp_path)
    with pytest.raises(LookmError, match=r"own.yaml has the path '/models/own', which is no repository of the hub"):
        read_source("own")
