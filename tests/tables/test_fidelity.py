"""Claims about docs/fidelity.md: its numbers are those of the files it names."""

import csv
import math
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
MINI = ROOT / "results" / "mini"


def compared(name: str) -> dict[str, list[str]]:
    """Run → its line of a file that `scripts.compare` wrote."""
    lines = (MINI / name).read_text(encoding="utf-8").splitlines()
    return {line.split()[0]: line.split() for line in lines if line.startswith("tiny-")}


def test_the_effect_of_the_semantics_is_what_was_measured() -> None:
    lines = compared("semantics.txt")
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| (\S+)(?: \[(\S+), (\S+)\])?( [▲▼])? \| (\d+) % \|", PAGE, re.M
    )
    assert len(rows) == len(lines) == 10
    for name, paper, release, difference, low, high, mark, changed in rows:
        _, _, *measured = lines[f"tiny-mini-{name}-0.1-0.1-release-fp32"]
        assert [paper, release] == measured[:2]
        assert difference + mark.strip() == measured[2]
        if low:
            assert [low, high] == measured[3:5]
        assert int(changed) == math.floor(float(measured[5]) + 0.5)


def test_table_6_keeps_what_the_page_says() -> None:
    with (MINI / "table6-paper.csv").open(encoding="utf-8") as stream:
        means = {line["strategy"]: line for line in csv.DictReader(stream) if line["column"] == "column mean"}
    scores = [f"{float(means[name]['score']):.1f}" for name in ("h2o", "snapkv", "roco", "tp_pmerge")]
    kept = {name: f"{float(line['realised_budget']):.1f}" for name, line in means.items()}
    assert f"keep {kept['h2o']} % of the tokens and score {scores[0]}, {scores[1]} and {scores[2]}" in PAGE
    assert f"**{kept['tp_pmerge']} %**, twenty times as much, and scores {scores[3]}" in PAGE


def test_small_differences_of_table_1_exclude_zero_on_one_task_only() -> None:
    with (MINI / "table1-paper.csv").open(encoding="utf-8") as stream:
        cells = [line for line in csv.DictReader(stream) if line["minus_full"] and line["column"] != "column mean"]
    assert len(cells) == 99
    small = [line for line in cells if line["excludes_zero"] == "true" and abs(float(line["minus_full"])) < 10]
    assert (len(small), {line["column"] for line in small}) == (5, {"S-3"})
    smallest = max(small, key=lambda line: float(line["minus_full"]))
    assert f"`{smallest['strategy']}`'s −{-float(smallest['minus_full']):.1f}" in PAGE
