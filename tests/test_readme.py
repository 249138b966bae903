"""README's code runs as it stands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_library_use_runs_and_prints_what_readme_shows(capsys: pytest.CaptureFixture[str]) -> None:
    library, one_layer, sweep, _ = blocks("python")
    exec(library, {})
    exec(sweep, {})
    printed = capsys.readouterr().out.splitlines()
    shown = [line for block in blocks("text") for line in block.splitlines()]
    for line in printed:
        assert line in shown or "time" in line, line
    namespace: dict[str, object] = {}
    exec(one_layer, namespace)
    keys = namespace["keys"]
    assert tuple(keys.shape[:2]) == (1, 4)  # type: ignore[attr-defined]


def test_a_strategy_is_added_by_one_file_and_one_yaml(tmp_path: Path) -> None:
    for package in ("lookm", "baselines", "configs"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("tiny_llava", "__pycache__"))
    (tmp_path / "baselines" / "streaming.py").write_text(blocks("python")[-1], encoding="utf-8")
    (tmp_path / "configs" / "strategy" / "streaming.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    code = """
import torch
from lookm import compress_rows
q, k, v = torch.randn(3, 1, 2, 100, 8)
(row,) = compress_rows(q, k, v, torch.ones(100, dtype=torch.bool), strategy="streaming", alpha1=0.05, alpha2=0.03)
print(row.positions.tolist())
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str([[0, 1, 2, *range(95, 100)]] * 2)


@pytest.mark.parametrize("command", re.findall(r"python -m (scripts\.\w+)", README))
def test_every_script_that_readme_names_explains_itself(command: str) -> None:
    module = ROOT / Path(*command.split(".")).with_suffix(".py")
    assert "argparse" in module.read_text(encoding="utf-8")
