"""A run with another storage is a run of its own: in its folder, its files, its tables and beside the full cache."""

import json

import pytest

from benchmarks.evaluation.comparable import comparable
from benchmarks.evaluation.run import run_group
from benchmarks.evaluation.store import find_runs
from benchmarks.tables.frame import read_frame
from benchmarks.tables.run_tables import comparison_table, run_table
from benchmarks.tables.table import as_markdown
from lookm.errors import LookmError
from lookm.registry import load_storage
from tests.runner.conftest import MakeSettings


def test_the_folder_names_the_storage_and_what_is_changed_of_it(settings_of: MakeSettings) -> None:
    plain, stored = settings_of(), settings_of("storage=kivi2")
    assert stored.run == plain.run.replace("tp_pmerge", "tp_pmerge+kivi2")
    assert stored.strategy.storage == load_storage("kivi2")
    assert settings_of("storage=plain").run == plain.run
    changed = settings_of("storage=kivi2", "storage.residual=8")
    assert changed.run != stored.run
    assert changed.deviations == {**stored.deviations, "storage.residual": 8}
    assert "storage" not in plain.identity["strategy"]
    assert stored.identity["strategy"]["storage"] == {"name": "kivi2", "residual": None, "bits": 2, "group": 32}
    assert changed.identity["strategy"]["storage"]["residual"] == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("storage.bits=3", "bits=3 is unknown; choose one of 1, 2, 4, 8"),
        ("strategy=h2o_decoding", "storage=kivi2 stores a prompt once, and strategy=h2o_decoding evicts from it"),
    ],
)
def test_a_wrong_storage_is_one_line(settings_of: MakeSettings, override: str, message: str) -> None:
    with pytest.raises(LookmError) as error:
        settings_of("storage=kivi2", override)
    assert message in str(error.value)


def test_runs_of_one_strategy_in_several_storages_stand_apart(settings_of: MakeSettings) -> None:
    asked = [
        settings_of(f"strategy={strategy}", f"storage={storage}", "limit=2")
        for strategy in ("full", "h2o")
        for storage in ("plain", "kivi2")
    ]
    assert [one.is_full for one in asked] == [True, False, False, False]
    summaries = [outcome.summary for outcome in run_group(asked)]
    kept = [summary.mean.kept_bytes or 0 for summary in summaries]
    assert kept[1] < kept[0]
    assert kept[3] < kept[2]
    shares = [summary.mean.budget or 0 for summary in summaries]  # of bytes: a storage keeps every token of full
    assert shares[0] == 1
    assert shares[1] < 1
    assert shares[3] < shares[2]
    runs = {run.name: run for run in find_runs(asked[0].results_dir)}
    assert len(runs) == 4
    abouts = [json.loads((one.folder / "run.json").read_text()) for one in asked]
    assert [about["reference"] for about in abouts] == [None, *[asked[0].run] * 3]
    assert abouts[3]["labels"]["strategy"] == "h2o + kivi2"
    assert all(comparable(abouts[0], about) for about in abouts)
    frame = read_frame(runs.values())
    assert set(frame.variant) == {"full", "full + kivi2", "h2o", "h2o + kivi2"}
    assert set(frame.strategy) == set(frame.variant)
    table = as_markdown(comparison_table(summaries))
    assert "| h2o + kivi2 " in table
    assert "| full + kivi2 " in table
    assert "h2o + kivi2" in run_table(summaries[3]).title


def test_methods_that_evict_while_decoding_pass_the_audit(settings_of: MakeSettings) -> None:
    names = ("h2o_decoding", "streaming_decoding", "elastic", "cascading")
    outcomes = run_group([settings_of(f"strategy={name}", "limit=2") for name in names])
    assert all(outcome.summary.mean.failed == 0 for outcome in outcomes)
    assert all(outcome.summary.mean.n for outcome in outcomes)
