import json
import shutil
from pathlib import Path

import pytest

from benchmarks.evaluation.store import find_runs
from benchmarks.report.audits import budget_audits, failures, origins, truncations
from benchmarks.report.charts import time_chart
from benchmarks.report.groups import Group, gather
from benchmarks.report.samples import telling_samples
from benchmarks.report.scores import headline, paper_score, score_table
from benchmarks.tables import cells as cells_module
from lookm.errors import LookmError
from tests.report.conftest import half_right, strategy, truth
from tests.runner.small_benchmark import CHOICE, NEEDLE, ROUGE
from tests.tables.run_folders import Folders


@pytest.fixture(scope="module")
def group(runs: Path) -> Group:
    (one,) = gather(find_runs(runs))
    return one


def test_runs_that_differ_in_strategy_and_budget_are_one_group_full_cache_first(group: Group) -> None:
    assert [row.label for row in group.rows] == [
        "full", "h2o 0.1 + 0.1", "h2o 0.2 + 0.2", "tp_pmerge 0.1 + 0.1", "tp_pmerge 0.2 + 0.2",
    ]  # fmt: skip
    assert [column.name for column in group.columns] == ["T-1", "S-3", "N-1", "task mean"]
    assert group.budgets == [(0.1, 0.1, None), (0.2, 0.2, None)]
    assert group.left_out == 0


def test_another_data_type_is_another_group_and_lost_samples_are_counted(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.write("full", strategy("full"), truth)
    folders.write("short", strategy("h2o"), half_right, limit=3)
    folders.write("half", strategy("h2o"), half_right, dtype="bfloat16")
    by_setting = {group.setting: group for group in gather(find_runs(folders.results))}
    assert [row.strategy for row in by_setting["float32"].rows] == ["full", "h2o"]
    assert by_setting["float32"].left_out == 3  # one of each dataset
    assert [row.strategy for row in by_setting["bfloat16"].rows] == ["h2o"]
    assert by_setting["bfloat16"].full is None


def test_semantics_and_changed_fields_are_told_apart(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.write("a", strategy("tp_pmerge"), truth)
    folders.write("b", strategy("tp_pmerge", semantics="release"), truth)
    folders.write("c", strategy("tp_pmerge", text_prior="strict"), truth)
    (group,) = gather(find_runs(folders.results))
    assert sorted(row.variant for row in group.rows) == [
        "tp_pmerge, paper", "tp_pmerge, paper, text_prior=strict", "tp_pmerge, release",
    ]  # fmt: skip


def test_runs_without_samples_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    about = {
        "name": "empty",
        "format": 2,
        "configuration": {"model": {"name": "m"}, "benchmark": {"name": "b"}, "strategy": {}},
    }
    (tmp_path / "empty" / "run.json").write_text(json.dumps(about))
    with pytest.raises(LookmError, match="no finished sample yet"):
        gather(find_runs(tmp_path))


def test_score_table_shows_scores_chance_and_costs(group: Group) -> None:
    table = score_table(group, (0.1, 0.1, None), "official", dict.fromkeys(("full", "h2o", "tp_pmerge"), "#000000"))
    full, h2o, _ = table.lines
    assert [cell.text for cell in full.cells] == ["100.0", "100.0", "0.0", "66.7"]  # no needle is two words
    assert h2o.cells[0].text == "25.0"  # one of four: the attack is no choice
    assert h2o.costs[:2] == ("20.0", "80 B")
    assert table.chance[:2] == ("50.0", "10.0")
    assert not any(cell.paper for line in table.lines for cell in line.cells)
    points, low, high, n = table.differences["against"][0][1][0]
    assert (points, low, high, n) == (-75.0, None, None, 4)  # too few pairs for an interval
    assert table.differences["against"][1][0][0][0] == 75.0  # the full cache against h2o
    assert table.differences["against"][0][0] == [None] * 4
    assert ("full cache, task mean", "66.7 %") in headline(group)


def test_intervals_are_shown_from_enough_pairs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells_module, "FEWEST_PAIRS", 1)
    (group,) = gather(find_runs(runs))
    table = score_table(group, (0.1, 0.1, None), "official", dict.fromkeys(("full", "h2o", "tp_pmerge"), "#000000"))
    points, low, high, _ = table.differences["against"][0][1][3]
    assert low <= points <= high < 0


def test_a_time_over_part_of_the_samples_says_so_and_shared_times_are_nowhere(tmp_path: Path) -> None:
    times = {"compress_ms": 1.0, "prefill_ms": 2.0, "decode_ms_per_token": 3.0, "batch": 1}
    folders = Folders(tmp_path)
    for name, alone in (("full", 1), ("h2o", 0)):
        folders.write(
            name,
            strategy(name),
            truth,
            fields=lambda dataset, number, alone=alone: {"times": {**times, "decode_rows": 2 - (number < alone)}},
        )
    (group,) = gather(find_runs(folders.results))
    table = score_table(group, (0.1, 0.1, None), "official", {"full": "", "h2o": ""})
    assert [line.costs[-1] for line in table.lines] == ["3.00 (3 of 12 samples)", "–"]
    assert time_chart(group) is None  # one time is no comparison


def test_runs_over_fewer_datasets_are_not_ranked_with_the_others(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.write("full", strategy("full"), half_right)
    run = folders.write("h2o", strategy("h2o"), truth)
    shutil.rmtree(run / NEEDLE)  # on which both score nothing
    (group,) = gather(find_runs(folders.results))
    assert group.cell(group.rows[1], "T-1") is not None
    assert group.cell(group.rows[1], "task mean") is None
    assert not any(name.startswith("best compressed") for name, _ in headline(group))


def test_paper_scores_stand_beside_the_papers_benchmark_only(group: Group, runs: Path) -> None:
    from dataclasses import replace

    row = group.at((0.1, 0.1, None))[1]
    assert paper_score(group, row, "T-1") is None
    real = replace(group, is_paper_benchmark=True, model="llava7b")
    assert paper_score(real, row, "T-1") == 40.2
    assert paper_score(real, real.rows[0], "NH") == 4.7
    assert paper_score(real, row, "I-1") is None
    assert paper_score(replace(real, model="tiny"), row, "T-1") is None
    assert paper_score(real, replace(row, variant="h2o, release"), "T-1") is None


def test_audit_finds_a_run_that_keeps_more_than_it_promises(group: Group) -> None:
    audits = {audit["row"].label: audit for audit in budget_audits(group)}
    good = audits["h2o 0.1 + 0.1"]
    assert [good[key] for key in ("mean", "over", "broken", "samples")] == [pytest.approx(0.2), 0, 0, 11]
    union = audits["tp_pmerge 0.1 + 0.1"]  # all text, a quarter of the prompt, must stay; 8 of 40 tokens were recorded
    assert union["broken"] == 12
    assert union["text"] == pytest.approx(0.25)
    assert audits["full"]["broken"] == 12  # the made-up record of the full cache kept a fifth


def test_failures_and_truncations_are_listed(group: Group, tmp_path: Path) -> None:
    listed = [tuple(item[key] for key in ("dataset", "sample_id", "error")) for item in failures(group)]
    assert listed == [(NEEDLE, "3", "image 0.png is missing")] * 2
    folders = Folders(tmp_path)
    folders.write("cut", strategy("full"), truth, fields=lambda dataset, number: {"dropped_images": 2 * (number % 2)})
    (cut,) = gather(find_runs(folders.results))
    for line in truncations(cut):
        assert [line[key] for key in ("samples", "truncated", "lost_images", "images")] == [4, 2, 2, 1.0]


def test_origin_names_the_command_that_makes_a_run_again(group: Group) -> None:
    by_label = {item["row"].label: item for item in origins(group)}
    assert by_label["h2o 0.2 + 0.2"]["command"] == (
        "lookm run model=random benchmark=small strategy=h2o alpha1=0.2 alpha2=0.2 semantics=paper dtype=float32"
    )
    assert by_label["full"]["command"] == "lookm run model=random benchmark=small strategy=full dtype=float32"
    assert by_label["full"]["state"] == "finished"


def test_budgets_that_were_given_as_such_are_told_from_alpha1_and_alpha2(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    for name, fields in (("plain", {}), ("share", {"budget": 0.2}), ("tokens", {"budget": 16})):
        kept = {"kept_tokens": (16, 16), "realised_budget": 0.2, "kept_bytes": 160}
        folders.write(name, strategy("h2o", **fields), truth, fields=lambda dataset, number, kept=kept: kept)
    free = {"_target_": "baselines.corm.Corm", "window": 256, "recent": 256, "name": "corm", "semantics": "paper"}
    folders.write("free", free, truth)
    (group,) = gather(find_runs(folders.results))
    labels = ["h2o 0.1 + 0.1", "h2o, capped 20 %", "h2o, capped 16 tokens"]
    assert [row.label for row in group.rows] == [*labels, "corm"]
    assert [row.budget for row in group.rows] == [0.2, 0.2, None, None]
    assert group.full is None
    assert [[row.label for row in group.compressing(asked)] for asked in group.budgets] == [
        [label, "corm"] for label in labels
    ]
    assert [audit["over"] for audit in budget_audits(group)] == [0, 0, 0, 0]
    assert [origin["command"].split()[5:8] for origin in origins(group)[:3]] == [
        ["alpha1=0.1", "alpha2=0.1", "semantics=paper"],
        ["alpha1=0.1", "alpha2=0.1", "budget=0.2"],
        ["alpha1=0.1", "alpha2=0.1", "budget=16"],
    ]


def test_telling_samples_contrast_the_text_prior_by_turns_won_and_lost(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.write("full", strategy("full"), truth)
    prior_wins, prior_loses = (ROUGE, 2), (CHOICE, 1)

    def h2o(dataset: str, number: int) -> str:
        return "nothing" if (dataset, number) == prior_wins else truth(dataset, number)

    def tp(dataset: str, number: int) -> str:
        return "right" if (dataset, number) == prior_loses else truth(dataset, number)

    folders.write("h2o", strategy("h2o"), h2o)
    folders.write("tp", strategy("tp_pmerge"), tp)
    (group,) = gather(find_runs(folders.results))
    assert telling_samples(group, (0.1, 0.1, None), 2) == [(ROUGE, "2"), (CHOICE, "1")]
    assert len(telling_samples(group, (0.1, 0.1, None), 9)) == 2  # the full cache finds no needle
