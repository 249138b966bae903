"""`python -m scripts.model_memory`: every backbone under every strategy, printed and saved."""

import json
from pathlib import Path

import pytest

from lookm.registry import strategy_names
from scripts.model_memory import backbone_names, main


def test_the_table_and_the_file_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "memory.json"
    assert main(["llava7b", "mobilevlm3b", "--output", str(file)]) == 0
    saved = json.loads(file.read_text())
    assert "not measured" in saved["what"]
    assert list(saved["models"]) == ["llava7b", "mobilevlm3b"]
    for model in saved["models"].values():
        assert list(model["strategies"]) == strategy_names()
        assert model["weights"] > model["weights_quantized"]["8bit"] > model["weights_quantized"]["4bit"]
    printed = capsys.readouterr().out
    assert "computed from the configurations (not measured)" in printed
    llava = saved["models"]["llava7b"]
    row = next(line.split() for line in printed.splitlines() if line.startswith("llava7b"))
    assert row[1:3] == ["4096", f"{llava['weights'] / 2**30:.2f}"]
    assert row[-1] == f"{llava['strategies']['tp_pmerge']['peak'] / 2**30:.2f}"


def test_no_prompt_is_longer_than_the_models_context(tmp_path: Path) -> None:
    assert main(["mobilevlm3b", "--length", "9000", "--output", str(tmp_path / "m.json")]) == 0
    assert json.loads((tmp_path / "m.json").read_text())["models"]["mobilevlm3b"]["prompt_tokens"] == 2048


def test_all_backbones_are_known() -> None:
    assert {"llava7b", "llava13b", "mobilevlm3b", "internvl7b", "qwen2_5vl7b", "internvl3_8b"} <= set(backbone_names())
    assert not {"tiny", "tiny_qwen"} & set(backbone_names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt"], "model 'gpt' is unknown; choose one of internvl3_8b"),
        (["tiny"], "tiny comes with this repository"),
        (["llava7b", "--length", "0"], "--length must be at least 1, not 0"),
        (["llava7b", "--alpha1", "2"], "alpha1"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_nothing_is_written_unless_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["llava7b"]) == 0
    assert list(tmp_path.iterdir()) == []
