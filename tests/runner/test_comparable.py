"""Claims about which runs may stand in one table."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation.comparable import (
    check_comparable,
    check_same_samples,
    choose_runs,
    common_samples,
    comparable_groups,
)
from benchmarks.evaluation.store import find_runs
from benchmarks.tables.frame import collect, read_frame
from lookm.errors import LookmError
from tests.runner.small_benchmark import NEEDLE, SAMPLES
from tests.tables.run_folders import STRATEGIES, Folders, right

FULL = {**STRATEGIES["full"], "name": "full"}
H2O = {**STRATEGIES["h2o"], "name": "h2o", "alpha1": 0.1, "alpha2": 0.1, "semantics": "paper"}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path)
    folders.write("a-full", FULL, right)
    return folders


def test_runs_that_differ_in_strategy_and_budget_only_may(folders: Folders) -> None:
    folders.write("b-h2o", H2O, right)
    folders.write("c-h2o", {**H2O, "alpha1": 0.05}, right)
    check_comparable(find_runs(folders.results))
    check_same_samples(collect(folders.results))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dtype": "bfloat16"}, "dtype is float32 in a-full and bfloat16 in b-h2o"),
        ({"seed": 3}, "seed is 0 in a-full and 3 in b-h2o"),
        ({"model": {"max_context_len": 9}}, "model.max_context_len is absent in a-full and 9 in b-h2o"),
        ({"benchmark": {"adversarial": True}}, "benchmark.adversarial is absent in a-full and true in b-h2o"),
        ({"weights": "1" * 16}, f"weights is {'0' * 16} in a-full and {'1' * 16} in b-h2o"),
    ],
)
def test_runs_that_differ_in_anything_else_are_refused_with_what_and_where(
    folders: Folders, changed: dict[str, Any], said: str
) -> None:
    folders.write("b-h2o", H2O, right, **changed)
    with pytest.raises(LookmError, match="cannot stand in one table") as caught:
        check_comparable(find_runs(folders.results))
    assert said in str(caught.value)
    assert "--where" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_semantics_are_refused_though_the_full_cache_has_none(folders: Folders) -> None:
    folders.write("b-h2o", H2O, right)
    folders.write("c-h2o", {**H2O, "semantics": "release"}, right)
    with pytest.raises(LookmError, match="semantics is paper in b-h2o and release in c-h2o"):
        check_comparable(find_runs(folders.results))


def test_other_data_are_refused_but_more_datasets_are_not(folders: Folders) -> None:
    path = folders.write("b-h2o", H2O, right) / "run.json"
    about = json.loads(path.read_text())
    about["data"]["Another"] = "abc"
    path.write_text(json.dumps(about))
    check_comparable(find_runs(folders.results))
    about["data"][NEEDLE] = "abc"
    path.write_text(json.dumps(about))
    with pytest.raises(LookmError, match=f"data.{NEEDLE} is "):
        check_comparable(find_runs(folders.results))


def test_other_limits_are_refused_with_both_counts_and_the_common_samples_can_be_had(folders: Folders) -> None:
    folders.write("b-h2o", H2O, right, limit=2)
    table = collect(folders.results)
    with pytest.raises(LookmError, match=f"b-h2o has 2 samples of .* and a-full has {SAMPLES}, 2 of them the same"):
        check_same_samples(table)
    shared = common_samples(table)
    check_same_samples(shared)
    assert shared.groupby("run").size().to_dict() == {"a-full": 6, "b-h2o": 6}


def test_a_dataset_that_a_run_has_nothing_of_does_not_make_the_others_uncommon(folders: Folders) -> None:
    run = folders.write("b-h2o", H2O, right)
    (run / NEEDLE / "samples.jsonl").unlink()
    table = read_frame(find_runs(folders.results))
    check_same_samples(table)
    assert len(common_samples(table)) == len(table)
    everyone = common_samples(table, datasets=True)
    assert NEEDLE not in set(everyone.dataset)
    assert everyone.groupby("run").size().nunique() == 1


def test_the_same_sample_made_from_other_data_is_refused(folders: Folders) -> None:
    run = folders.write("b-h2o", H2O, right)
    path = run / NEEDLE / "samples.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), "digest": "f" * 16}), *rest]) + "\n")
    with pytest.raises(LookmError, match=f"sample 0 of {NEEDLE} was another one"):
        check_same_samples(collect(folders.results))


def test_where_takes_booleans_as_they_are_written_and_names_what_matches_nothing(folders: Folders) -> None:
    folders.write("b-full", FULL, right, benchmark={"adversarial": True})
    folders.write("c-full", FULL, right, benchmark={"adversarial": False, "combine_image": None})
    runs = find_runs(folders.results)
    for text in ("true", "True", "TRUE"):
        assert [run.name for run in choose_runs(runs, {"benchmark.adversarial": text})] == ["b-full"]
    assert [run.name for run in choose_runs(runs, {"benchmark.adversarial": "false"})] == ["c-full"]
    with pytest.raises(LookmError, match=r"--where benchmark.adverserial: .* did you mean benchmark.adversarial"):
        choose_runs(runs, {"benchmark.adverserial": "true"})
    with pytest.raises(LookmError, match=r"--where dtype=float16: no run has this value; there are float32"):
        choose_runs(runs, {"dtype": "float16"})
    assert choose_runs([], {"dtype": "float16"}) == []


def test_groups_hold_what_may_be_compared_and_both_semantics(folders: Folders) -> None:
    folders.write("b-h2o", H2O, right)
    folders.write("c-h2o", {**H2O, "semantics": "release"}, right)
    folders.write("d-h2o", H2O, right, dtype="bfloat16")
    groups = comparable_groups(find_runs(folders.results))
    assert [[run.name for run in group] for group in groups] == [["a-full", "b-h2o", "c-h2o"], ["d-h2o"]]
