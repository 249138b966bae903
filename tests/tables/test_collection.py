"""Claims about runs as one table."""

import json
import math
import shutil
from pathlib import Path

import pytest

from benchmarks.tables.collection import COLUMNS, collect, collect_runs, find_runs
from lookm.errors import LookmError
from tests.runner.small_benchmark import CHOICE, NEEDLE, ROUGE, SAMPLES
from tests.tables.run_folders import STRATEGIES, Folders, right

FULL = {**STRATEGIES["full"], "name": "full"}
H2O = {**STRATEGIES["h2o"], "name": "h2o", "alpha1": 0.1, "alpha2": 0.1, "semantics": "paper"}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_every_sample_of_every_run_is_one_line_with_the_documented_columns(folders: Folders) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-h2o", H2O, lambda dataset, number: "right" if dataset == CHOICE else "the ball")
    table = collect(folders.results)
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 2 * 3 * SAMPLES
    assert list(table.run.unique()) == ["a-full", "b-h2o"]
    first = table[(table.run == "b-h2o") & (table.dataset == NEEDLE)].iloc[0]
    assert (first.model, first.benchmark, first.label) == ("random", "small", "random LLaVA · small benchmark")
    assert (first.strategy, first.alpha1, first.alpha2, first.semantics) == ("h2o", 0.1, 0.1, "paper")
    assert (first.task, first.sample_id, first.prompt_tokens, first.image_tokens) == ("N-1", "0", 40, 30)
    assert (first.decode_ms, first.compress_ms, first.prefill_ms) == (3.0, 1.0, 2.0)
    assert (first.realised_budget, first.kept_bytes, first.full_bytes) == (0.2, 80, 400)
    assert list(first.answer_tokens) == list(b"the ball")


def test_the_full_cache_has_neither_budget_nor_semantics(folders: Folders) -> None:
    folders.write("a-full", FULL, right)
    table = collect(folders.results)
    assert table.alpha1.isna().all()
    assert table.semantics.isna().all()


def test_scores_are_those_of_both_protocols(folders: Folders) -> None:
    answers = {CHOICE: "left", ROUGE: "the red ball", NEEDLE: "the ball."}
    folders.write("a-full", FULL, lambda dataset, number: answers[dataset])
    table = collect(folders.results).set_index("dataset")
    assert (table.official[CHOICE] == 1).all()
    assert table.official[ROUGE].to_numpy() == pytest.approx(0.8, abs=1e-6)
    # A needle of two words is no token of the answer to MileBench's evaluator; the repaired one finds it.
    assert (table.official[NEEDLE] == 0).all()
    assert (table.repaired[NEEDLE] == 1).all()


def test_a_failed_sample_is_a_line_without_scores(folders: Folders) -> None:
    folders.write("a-full", FULL, lambda dataset, number: None if number == 1 else right(dataset, number))
    table = collect(folders.results)
    failed = table[table.error.notna()]
    assert len(failed) == 3
    assert set(failed.sample_id) == {"1"}
    assert failed.official.isna().all()
    assert table[table.error.isna()].official.notna().all()


def test_scores_survive_the_loss_of_the_data_to_three_decimals(folders: Folders) -> None:
    folders.write("a-full", FULL, lambda dataset, number: "a ball and the rest of it")
    before = collect(folders.results)
    shutil.rmtree(folders.benchmark.root)
    after = collect(folders.results)
    for protocol in ("official", "repaired"):
        assert after[protocol].to_numpy() == pytest.approx(before[protocol].to_numpy(), abs=5e-4)


def test_scores_are_not_made_from_data_that_have_changed_since(folders: Folders) -> None:
    folders.write("a-full", FULL, right)
    path = folders.benchmark.root / NEEDLE / f"{NEEDLE}.json"
    annotation = json.loads(path.read_text())
    for sample in annotation["data"]:
        sample["response"] = "dog"
    path.write_text(json.dumps(annotation))
    table = collect(folders.results)
    needles = table[table.dataset == NEEDLE]
    written = json.loads((folders.results / "a-full" / NEEDLE / "repaired.json").read_text())["eval_score"]
    assert list(needles.repaired) == [float(entry["score"]) for entry in written] == [1.0] * SAMPLES


def test_without_data_and_evaluation_there_is_no_score(folders: Folders) -> None:
    folder = folders.write("a-full", FULL, right)
    shutil.rmtree(folders.benchmark.root)
    (folder / NEEDLE / "eval_score.json").unlink()
    table = collect(folders.results)
    assert all(map(math.isnan, table[table.dataset == NEEDLE].official))


def test_reading_a_run_that_is_being_written_changes_nothing_and_leaves_the_open_line_out(folders: Folders) -> None:
    folder = folders.write("a-full", FULL, right)
    path = folder / NEEDLE / "samples.jsonl"
    torn = path.read_bytes()[:-20]
    path.write_bytes(torn)
    table = collect(folders.results)
    assert len(table[table.dataset == NEEDLE]) == SAMPLES - 1
    assert path.read_bytes() == torn


def test_runs_are_found_in_a_results_folder_by_their_own_folder_and_only_once(folders: Folders) -> None:
    full = folders.write("a-full", FULL, right)
    folders.write("b-h2o", H2O, right)
    assert [run.name for run in find_runs(folders.results)] == ["a-full", "b-h2o"]
    assert [run.name for run in find_runs(str(full))] == ["a-full"]
    assert [run.name for run in find_runs([full, folders.results])] == ["a-full", "b-h2o"]
    assert set(collect_runs(find_runs([full])).run) == {"a-full"}


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_runs_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LookmError, match=name) as caught:
        find_runs(tmp_path / name)
    assert "\n" not in str(caught.value)
