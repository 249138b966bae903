"""The linter's table, JSON and exit status."""

import json
from pathlib import Path

import pytest

from benchmarks.milebench import lengths
from lookm.registry import yaml_of
from scripts import inspect_data
from scripts.inspect_data import FOUND, main
from tests.milebench.original_layout import annotation_of, dump, write_milebench


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """TQA with an answer that is none of its choices, and two of three samples with a missing picture."""
    write_milebench(tmp_path / "data", ["TQA"])
    annotation = annotation_of("TQA")
    annotation["data"][0]["response"] = "neither"
    dump(tmp_path / "data" / "TQA" / "TQA.json", annotation)
    (tmp_path / "data" / "TQA" / "images" / "2" / "1.png").unlink()
    return tmp_path / "data"


def run(root: Path, *options: str) -> int:
    return main(["--root", str(root), "--datasets", "TQA", *options])


def test_findings_are_counted_listed_and_given_a_status(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root) == FOUND
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"MileBench in {root}"
    assert lines[2].split() == ["dataset", "task", "samples", "images", "per", "sample", "found"]
    assert lines[4].split() == ["TQA", "S-1", "3", "6", "1–3", "3"]
    assert "TQA, sample 0: answer_not_in_choices: 'neither' is none of" in "\n".join(lines)
    assert "TQA, sample 2: missing_image: image 1.png is missing" in lines
    assert "TQA: sample_count: 3 samples instead of 200" in lines


def test_ignored_kinds_do_not_count(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(root, "--ignore", "sample_count", "answer_not_in_choices", "missing_image") == 0
    assert capsys.readouterr().out.endswith("nothing found\n")
    monkeypatch.setattr(inspect_data, "SHOWN", 1)
    assert run(root, "--ignore", "sample_count") == FOUND
    assert "… and 1 more (--json FILE has all)" in capsys.readouterr().out
    assert run(root, "--ignore", "typos") == 2
    assert "--ignore typos is unknown; the kinds are missing_dataset, sample_count" in capsys.readouterr().err


def test_json_holds_everything(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "found.json"
    monkeypatch.setattr(lengths, "yaml_of", lambda *of: yaml_of(*of) | {"max_context_len": 60})
    assert run(root, "--model", "tiny", "--json", str(path), "--ignore", "missing_image") == FOUND
    content = json.loads(path.read_text())
    assert content["measure"] == {
        "model": "tiny", "tokenizer_of": "tiny", "n_tokens_per_image": 16, "max_context_len": 60
    }  # fmt: skip
    (dataset,) = content["datasets"]
    assert dataset["found"] == {"sample_count": 1, "answer_not_in_choices": 1, "missing_image": 1}
    assert dataset["lengths"]["images_lost"] > 0
    assert {finding["kind"] for finding in content["findings"]} == set(dataset["found"])
    heading, _, row = capsys.readouterr().out.splitlines()[2:5]
    assert heading.endswith("tokens, mean  most  cut  images lost  text only")
    assert row.split()[-2] == str(dataset["lengths"]["images_lost"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--datasets", "Nothing"), "unknown dataset 'Nothing'; MileBench has"),
        (("--tokenizer", "tiny"), "--tokenizer stands in for a --model's; name that"),
        (("--adversarial", "--combined"), "cannot be had together"),
        (("--benchmark", "mini", "--combined"), "MileBench-mini has neither"),
        (("--json", "/proc/nowhere/x.json"), "/proc/nowhere/x.json cannot be written to"),
    ],
)
def test_wrong_input_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert main(["--root", str(root), "--datasets", "TQA", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_missing_data_name_the_command_that_gets_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path / "none")]) == 2
    assert f"`lookm download milebench --root {tmp_path / 'none'}`" in capsys.readouterr().err
