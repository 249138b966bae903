import json
from pathlib import Path

import pytest

from benchmarks.report.audits import budget_audits, failures, origins, truncations
from benchmarks.report.choice import telling_samples
from benchmarks.report.scenes import Scene, gather
from benchmarks.report.score_tables import headline, paper_score, score_table
from benchmarks.tables.collection import find_runs
from lookm.errors import LookmError
from tests.report.conftest import half_right, strategy, truth
from tests.runner.small_benchmark import CHOICE, NEEDLE, ROUGE
from tests.tables.run_folders import Folders


@pytest.fixture(scope="module")
def scene(runs: Path) -> Scene:
    (found,) = gather(find_runs(runs))
    return found


def test_runs_that_differ_in_strategy_and_budget_are_one_scene_full_cache_first(scene: Scene) -> None:
    assert [row.label for row in scene.rows] == [
        "full", "h2o 0.1 + 0.1", "h2o 0.2 + 0.2", "tp_pmerge 0.1 + 0.1", "tp_pmerge 0.2 + 0.2",
    ]  # fmt: skip
    assert [column.name for column in scene.columns] == ["T-1", "S-3", "N-1", "mean"]
    assert scene.budgets == [(0.1, 0.1), (0.2, 0.2)]
    assert scene.left_out == 0


def test_another_data_type_is_another_scene_and_lost_samples_are_counted(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.write("full", strategy("full"), truth)
    folders.write("short", strategy("h2o"), half_right, limit=3)
    folders.write("half", strategy("h2o"), half_right, dtype="bfloat16")
    by_setting = {scene.setting: scene for scene in gather(find_runs(folders.results))}
    assert [row.strategy for row in by_setting["float32"].rows] == ["full", "h2o"]
    assert by_setting["float32"].left_out == 3  # one of each dataset
    assert [row.strategy for row in by_setting["bfloat16"].rows] == ["h2o"]
    assert by_setting["bfloat16"].full is None


def test_semantics_and_changed_fields_are_told_apart(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.write("a", strategy("tp_pmerge"), truth)
    folders.write("b", strategy("tp_pmerge", semantics="release"), truth)
    folders.write("c", strategy("tp_pmerge", text_prior="strict"), truth)
    (scene,) = gather(find_runs(folders.results))
    assert sorted(row.variant for row in scene.rows) == [
        "tp_pmerge, paper", "tp_pmerge, paper, text_prior=strict", "tp_pmerge, release",
    ]  # fmt: skip


def test_runs_without_samples_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    about = {"name": "empty", "configuration": {"model": {"name": "m"}, "benchmark": {"name": "b"}, "strategy": {}}}
    (tmp_path / "empty" / "run.json").write_text(json.dumps(about))
    with pytest.raises(LookmError, match="no finished sample yet"):
        gather(find_runs(tmp_path))


def test_score_table_shows_scores_chance_and_costs(scene: Scene) -> None:
    table = score_table(scene, (0.1, 0.1), "official", {})
    full, h2o, _ = table.lines
    assert [cell.text for cell in full.cells] == ["100.0", "100.0", "0.0", "66.7"]  # no needle is two words
    assert h2o.cells[0].text == "25.0"  # one of four: the attack is no choice
    assert h2o.cells[-1].direction == "down"
    assert "points [" in h2o.cells[0].told
    assert h2o.costs[:2] == ("20.0", "80 B")
    assert table.chance[:2] == ("50.0", "10.0")
    assert not table.has_paper
    assert ("full cache, mean", "66.7 %") in headline(scene)


def test_paper_scores_stand_beside_the_papers_benchmark_only(scene: Scene, runs: Path) -> None:
    from dataclasses import replace

    row = scene.at((0.1, 0.1))[1]
    assert paper_score(scene, row, "T-1") is None
    real = replace(scene, benchmark="milebench", model="llava7b")
    assert paper_score(real, row, "T-1") == 40.2
    assert paper_score(real, real.rows[0], "NH") == 4.7
    assert paper_score(real, row, "I-1") is None
    assert paper_score(replace(real, model="tiny"), row, "T-1") is None
    assert paper_score(real, replace(row, variant="h2o, release"), "T-1") is None


def test_audit_finds_a_run_that_keeps_more_than_it_promises(scene: Scene) -> None:
    audits = {audit.row.label: audit for audit in budget_audits(scene)}
    good = audits["h2o 0.1 + 0.1"]
    assert (good.mean, good.over, good.broken, good.samples) == (pytest.approx(0.2), 0, 0, 11)
    union = audits["tp_pmerge 0.1 + 0.1"]  # all text, a quarter of the prompt, must stay; 8 of 40 tokens were recorded
    assert union.broken == 12
    assert union.text == pytest.approx(0.25)
    assert audits["full"].broken == 12  # the made-up record of the full cache kept a fifth


def test_failures_and_truncations_are_listed(scene: Scene, tmp_path: Path) -> None:
    listed, n = failures(scene)
    assert n == 2
    assert {(item.dataset, item.sample_id, item.error) for item in listed} == {(NEEDLE, "3", "image 0.png is missing")}
    folders = Folders(tmp_path)
    folders.write("cut", strategy("full"), truth, fields=lambda dataset, number: {"dropped_images": 2 * (number % 2)})
    (cut,) = gather(find_runs(folders.results))
    for line in truncations(cut):
        assert (line.samples, line.truncated, line.images) == (4, 2, 1.0)


def test_origin_names_the_command_that_makes_a_run_again(scene: Scene) -> None:
    found = {item.row.label: item for item in origins(scene)}
    assert found["h2o 0.2 + 0.2"].command == (
        "python run.py model=random benchmark=small strategy=h2o alpha1=0.2 alpha2=0.2 semantics=paper dtype=float32"
    )
    assert found["full"].command == "python run.py model=random benchmark=small strategy=full dtype=float32"
    assert found["full"].state == "finished"


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
    (scene,) = gather(find_runs(folders.results))
    assert telling_samples(scene, (0.1, 0.1), 2) == [(ROUGE, "2"), (CHOICE, "1")]
    assert len(telling_samples(scene, (0.1, 0.1), 9)) == 2  # the full cache finds no needle
