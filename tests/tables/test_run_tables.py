"""Claims about the table of a run and the comparison of a sweep."""

import re
from dataclasses import replace

from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.summary import summarise
from benchmarks.tables.run_tables import comparison_table, run_table
from benchmarks.tables.table import as_text
from tests.runner.conftest import MakeSettings
from tests.runner.test_summary import record, result


def test_the_run_table_names_what_it_shows(settings_of: MakeSettings) -> None:
    broken = SampleRecord(sample_id=2, digest="", chance=0.2, error="no image")
    one = result(
        "A",
        "T-1",
        {"1": 1.0},
        records=(record(1, chance=0.2, scores={"official": 1.0, "repaired": 1.0}), broken),
        selected=2,
    )
    text = as_text(run_table(summarise(settings_of("alpha1=0.05"), "tiny LLaVA", [one])))
    lines = text.splitlines()
    assert lines[0] == ("tiny LLaVA · small benchmark · tp_pmerge, nominal budget 15% (α 0.05 + 0.1), semantics paper")
    head = re.split(r"  +", lines[2])
    assert head[:6] == ["task", "n", "failed", "score %", "repaired %", "chance %"]
    assert head[6:] == ["budget %", "kept KV", "changed %", "ms/token"]
    assert lines[4].split() == ["T-1", "1", "1", "100.0", "100.0", "20.0", "50.0", "1.0", "KiB", "–", "1.00"]
    assert "failed ones are in samples.jsonl" in text
    assert "run the same with strategy=full" in text


def test_the_comparison_shows_the_full_cache_once_and_without_budget(settings_of: MakeSettings) -> None:
    one = [result("A", "T-1", {"1": 0.5})]
    full = summarise(settings_of("strategy=full"), "model", one)
    h2o = summarise(settings_of("strategy=h2o"), "model", one)
    lines = as_text(comparison_table([full, h2o])).splitlines()
    assert lines[4].split() == ["full", "–", "–", "50.0", "50.0", "50.0", "1.0", "KiB", "–", "1.00"]
    assert lines[5].split()[:5] == ["h2o", "0.1", "0.1", "50.0", "50.0"]
    assert lines[6].split() == ["chance", "20.0", "20.0"]
    assert lines[0].endswith("official protocol, semantics paper")
    assert not {"settings", "semantics", "failed"} & set(lines[2].split()), "what is the same everywhere has no column"


def test_the_comparison_counts_samples_without_an_answer(settings_of: MakeSettings) -> None:
    summary = summarise(settings_of(), "model", [result("A", "T-1", {"1": 0.5}, selected=4)])
    lines = as_text(comparison_table([summary])).splitlines()
    assert re.split(r"  +", lines[2])[:6] == ["strategy", "α1", "α2", "T-1", "task mean", "failed"]
    assert lines[4].split()[5] == "3"


def test_the_comparison_tells_apart_what_else_differs(settings_of: MakeSettings) -> None:
    one = [result("A", "T-1", {"1": 0.5})]
    summaries = [summarise(settings_of(f"strategy.text_prior={prior}"), "model", one) for prior in ("union", "strict")]
    text = as_text(comparison_table(summaries))
    assert "strategy.text_prior=strict" in text


def test_samples_of_another_commit_are_pointed_out(settings_of: MakeSettings) -> None:
    text = as_text(run_table(summarise(settings_of(), "m", [result("A", "T-1", {"1": 1.0})], ("a" * 40,))))
    assert "another commit of this program (aaaaaaa) were kept; overwrite=true starts afresh" in text


def test_a_time_over_part_of_the_samples_says_so(settings_of: MakeSettings) -> None:
    alone = {"decode_ms_per_token": 3.0, "batch": 1, "decode_rows": 1}
    joint = {**alone, "decode_rows": 11}
    records = tuple(record(k, scores={"official": 1.0, "repaired": 1.0}, times=joint if k else alone) for k in range(4))
    one = result("A", "T-1", {}, records=records, selected=4)
    partly = summarise(settings_of(), "m", [one])
    table = run_table(partly)
    assert "3.00°" in as_text(table)
    assert any("tp_pmerge over 1 of 4 samples" in note for note in table.notes)
    together = replace(one, records=records[1:], selected=3)
    none = run_table(summarise(settings_of(), "m", [together]))
    assert "3.00" not in as_text(none)
    assert "no decode step was of one strategy alone" in as_text(none)


def test_all_tasks_are_compared_where_runs_have_different_ones(settings_of: MakeSettings) -> None:
    first = summarise(settings_of("strategy=full"), "m", [result("A", "T-1", {"1": 0.5})])
    second = summarise(settings_of("strategy=h2o"), "m", [result("B", "T-2", {"1": 0.25})])
    text = as_text(comparison_table([first, second]))
    lines = text.splitlines()
    assert re.split(r"  +", lines[2])[:6] == ["strategy", "α1", "α2", "T-1", "T-2", "task mean"]
    assert lines[4].split()[3:6] == ["50.0", "–", "50.0"]
    assert lines[5].split()[3:6] == ["–", "25.0", "25.0"]
