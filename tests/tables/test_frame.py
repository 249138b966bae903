"""Claims about run folders as one frame."""

import shutil
from pathlib import Path

import pytest

from benchmarks.evaluation.store import find_runs
from benchmarks.tables.frame import COLUMNS, collect, known_datasets, read_frame
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


def test_no_benchmark_data_are_needed(folders: Folders) -> None:
    folders.write("a-full", FULL, lambda dataset, number: "a ball and the rest of it")
    before = collect(folders.results)
    shutil.rmtree(folders.benchmark.root)
    assert collect(folders.results).equals(before)
    assert [info.dataset for info in known_datasets(find_runs(folders.results))] == [CHOICE, ROUGE, NEEDLE]
    assert before.chance[before.dataset == CHOICE].unique() == [0.5]
    assert set(before.n_images) == set(range(1, SAMPLES + 1))


def test_records_of_other_ranks_are_read_too(folders: Folders) -> None:
    folder = folders.write("a-full", FULL, right)
    samples = folder / NEEDLE / "samples.jsonl"
    first, *rest = samples.read_text().splitlines(keepends=True)
    samples.write_text("".join(rest))
    (folder / NEEDLE / "samples.1.jsonl").write_text(first)
    assert len(collect(folders.results)) == 3 * SAMPLES


def test_a_time_that_other_strategies_share_is_no_time_of_the_run(folders: Folders) -> None:
    times = {"compress_ms": 1.0, "prefill_ms": 2.0, "decode_ms_per_token": 3.0, "batch": 2}

    def fields(dataset: str, number: int) -> dict[str, object]:
        return {"times": {**times, "decode_rows": 22 if number else 2}}

    folders.write("a-full", FULL, right, fields=fields)
    frame = collect(folders.results)
    alone = frame.sample_id == "0"
    assert (frame[alone][["decode_ms", "compress_ms", "prefill_ms"]] == [3.0, 1.0, 2.0]).all(axis=None)
    assert frame[~alone][["decode_ms", "compress_ms", "prefill_ms"]].isna().all(axis=None)


def test_the_variant_names_semantics_and_changed_fields_where_they_tell_runs_apart(folders: Folders) -> None:
    folders.write("a", H2O, right)
    folders.write("b", {**H2O, "semantics": "release"}, right)
    folders.write("c", {**H2O, "window": 3}, right)
    variants = collect(folders.results).groupby("run").variant.first().to_dict()
    assert variants == {"a": "h2o, paper", "b": "h2o, release", "c": "h2o, paper, window=3"}


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
    assert set(read_frame(find_runs([full])).run) == {"a-full"}


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_runs_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LookmError, match=name) as caught:
        find_runs(tmp_path / name)
    assert "\n" not in str(caught.value)
