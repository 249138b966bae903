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


def cells(name: str) -> dict[tuple[str, str], dict[str, str]]:
    """(strategy, column) → its line of a file that `scripts.tables` wrote."""
    with (MINI / name).open(encoding="utf-8") as stream:
        return {(line["strategy"], line["column"]): line for line in csv.DictReader(stream)}


def means_of(name: str) -> dict[str, dict[str, str]]:
    """Strategy → its line of means."""
    return {strategy: line for (strategy, column), line in cells(name).items() if column == "column mean"}


def signed(number: float) -> str:
    return f"{number:+.1f}".replace("-", "−")


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


def test_single_tasks_differ_between_paper_and_release_as_the_page_says() -> None:
    paper, release = cells("table1-paper.csv"), cells("table1-release.csv")
    for strategy, column, said in (
        ("snapkv", "S-1", "S-1 {} ["),
        ("snapkv", "S-3", "S-3 {} ["),
        ("snapkv", "IR", "I-1 {} ["),
        ("a_merge", "S-2", "`a_merge` loses 8.1 points on the mean and has {} ["),
    ):
        before, after = (round(float(table[strategy, column]["score"]), 1) for table in (paper, release))
        assert said.format(signed(after - before)) in PAGE  # of what tables print


def test_the_effect_of_a_strict_text_prior_is_what_was_measured() -> None:
    measured = {run.removesuffix("-paper-fp32-afbe90b9"): line for run, line in compared("text_prior.txt").items()}
    for strategy in ("tp", "tp_pmerge"):
        _, _, _, _, difference, low, high, changed, _, union, strict = measured[f"tiny-mini-{strategy}-0.025-0.025"]
        effect = f"{difference[:-1]} [{low}, {high}] {difference[-1]} | {math.floor(float(changed) + 0.5)} %"
        assert f"| 5 % | `{strategy}` | {union} % | {strict} % | {effect} |" in PAGE
    large = [line for run, line in measured.items() if run.endswith("-0.1-0.1")]
    differences = sorted(float(line[4].replace("−", "-")) for line in large)  # a mark would not be a number
    changes = sorted(math.floor(float(line[7]) + 0.5) for line in large)
    assert len(large) == 4
    assert {(line[9], line[10]) for line in large} == {("19.7", "19.6")}
    span = f"{signed(differences[0])} to {signed(differences[-1])}, within noise | {changes[0]}–{changes[-1]} %"
    assert f"| 19.7 % | 19.6 % | {span} |" in PAGE


def test_table_6_keeps_what_the_page_says() -> None:
    means = means_of("table6-paper.csv")
    scores = [f"{float(means[name]['score']):.1f}" for name in ("h2o", "snapkv", "roco", "tp_pmerge")]
    kept = {name: f"{float(line['realised_budget']):.1f}" for name, line in means.items()}
    chance = f"{float(means['h2o']['chance']):.1f}"
    baselines = f"score {scores[0]}, {scores[1]} and {scores[2]}, where guessing scores {chance}"
    assert f"keep {kept['h2o']} % of the tokens and {baselines}" in PAGE
    assert f"**{kept['tp_pmerge']} %**, twenty times as much, and scores {scores[3]}" in PAGE


def test_answers_change_where_the_page_says() -> None:
    places = [float(line["first_change"]) for line in means_of("table1-paper.csv").values() if line["first_change"]]
    assert (len(places), min(places), max(places)) == (9, 2, 5)
    assert "second to the fifth token on (a row's median" in PAGE
    table = cells("table1-paper.csv")
    changed = {strategy: float(table[strategy, "T-2"]["changed_answers"] or 0) for strategy, _ in table}
    changing = {strategy: share for strategy, share in changed.items() if share}
    assert set(changing) == {"a_merge", "w_merge", "tp_amerge", "tp_wmerge"}
    assert f"merging change {min(changing.values()):.0f} to {max(changing.values()):.0f} %" in PAGE
    line = cells("table6-paper.csv")["tp_pmerge", "T-2"]
    assert round(float(line["changed_answers"]) * int(line["n"]) / 100) == 1
    assert "one of 52 under\n  `tp_pmerge` at 1 %" in PAGE


def test_small_differences_of_table_1_that_exclude_zero_are_those_named() -> None:
    differences = [
        line for line in cells("table1-paper.csv").values() if line["minus_full"] and line["column"] != "column mean"
    ]
    assert len(differences) == 99
    small = [line for line in differences if line["excludes_zero"] == "true" and abs(float(line["minus_full"])) < 10]
    rouge = {line["strategy"]: float(line["minus_full"]) for line in small if line["column"] == "S-3"}
    right_or_wrong = [float(line["minus_full"]) for line in small if line["column"] != "S-3"]
    assert (len(small), len(rouge), len(right_or_wrong)) == (7, 3, 4)
    smallest = max(rouge, key=rouge.__getitem__)
    assert f"`{smallest}`'s {signed(rouge[smallest])}" in PAGE
    assert f"the smallest {signed(max(right_or_wrong))}, four answers of 52" in PAGE
