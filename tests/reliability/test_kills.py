"""Killed at any instant, a run goes on and ends in the files of an undisturbed one."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.evaluation.records import SampleRecord, mend_records, read_records
from benchmarks.evaluation.run import run
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import LOCKS
from benchmarks.evaluation.verify import difference, timeless
from benchmarks.files import read_json, write_json
from lookm.errors import LookmError
from tests.reliability.crashes import killed_at
from tests.reliability.soak import kill_often
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import DATASETS, NEEDLE

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

KILLS = 15


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Synchronisation guards against power cuts; what a killed process has written is the system's already."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def undisturbed(settings: Settings, folder: Path) -> Settings:
    """The same run elsewhere, finished."""
    reference = replace(settings, results_dir=folder / "undisturbed")
    run(reference)
    return reference


def work_of(settings: Settings) -> Callable[[], object]:
    return lambda: run(settings)


def test_killed_at_random_moments_it_ends_in_the_same_bytes(settings_of: MakeSettings, tmp_path: Path) -> None:
    result = kill_often(settings_of("model.batch_size=1", "limit=2"), tmp_path, KILLS, seed=6)
    assert result.kills >= KILLS
    assert result.runs >= 1
    assert result.differences == ()


def test_killed_before_every_step_on_the_disk_it_ends_in_the_same_bytes(
    settings_of: MakeSettings, tmp_path: Path
) -> None:
    settings = settings_of("model.batch_size=1", f"datasets={NEEDLE}", "limit=1")
    reference = undisturbed(settings, tmp_path)
    step = 0
    while killed_at(work_of(current := replace(settings, results_dir=tmp_path / f"{step}")), current.results_dir, step):
        run(current)
        assert difference(current.folder, reference.folder) == "", f"killed before step {step}"
        step += 1
    assert step > 20, "a run makes more steps than that: the steps are not seen any more"


def test_starting_afresh_may_be_killed_as_well(settings_of: MakeSettings, tmp_path: Path) -> None:
    settings = settings_of(f"datasets={NEEDLE}", "limit=1")
    reference = undisturbed(settings, tmp_path)
    leftovers = 0
    for step in range(14):
        run(settings)
        assert killed_at(work_of(replace(settings, overwrite=True)), settings.results_dir, step)
        leftovers += len(list((settings.results_dir / LOCKS).glob("*thrown-away")))
        run(settings)
        assert difference(settings.folder, reference.folder) == "", f"killed before step {step}"
    assert leftovers, "no kill hit the throwing away"
    assert not list((settings.results_dir / LOCKS).glob("*thrown-away"))


@pytest.mark.parametrize("torn", [0, 1, 200])
def test_killed_within_a_write_it_ends_in_the_same_bytes(settings_of: MakeSettings, tmp_path: Path, torn: int) -> None:
    settings = settings_of("model.batch_size=2", f"datasets={NEEDLE}")
    reference = undisturbed(settings, tmp_path)
    for batch in range(2):
        assert killed_at(work_of(settings), settings.results_dir, batch, torn=torn)
        assert not timeless_or_none(settings)
        run(settings)
        assert difference(settings.folder, reference.folder) == ""
        settings = replace(settings, results_dir=tmp_path / f"next{batch}")


def timeless_or_none(settings: Settings) -> bool:
    """Whether the folder looks finished."""
    try:
        return f"{NEEDLE}/pred.json" in timeless(settings.folder)
    except LookmError:
        return False


def test_datasets_that_end_in_another_order_leave_the_same_bytes(settings_of: MakeSettings, tmp_path: Path) -> None:
    settings = settings_of("limit=1")
    reference = undisturbed(settings, tmp_path)
    run(settings)
    about = read_json(settings.folder / "run.json")
    del about["results"][DATASETS[0].dataset]  # killed after its last sample, before its results
    write_json(settings.folder / "run.json", {**about, "state": "running"})
    run(settings)
    assert difference(settings.folder, reference.folder) == ""


def test_cut_at_any_byte_a_run_computes_its_last_sample_again(settings_of: MakeSettings, tmp_path: Path) -> None:
    settings = settings_of("model.batch_size=1", f"datasets={NEEDLE}", "limit=2", "strategy=h2o")
    reference = undisturbed(settings, tmp_path)
    run(settings)
    samples = settings.folder / NEEDLE / "samples.jsonl"
    whole = samples.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in {last + 1, (last + len(whole)) // 2, len(whole) - 2, len(whole) - 1}:
        samples.write_bytes(whole[:cut])
        assert run(settings).computed == 1, f"cut after {cut - last} bytes of the last line"
        assert difference(settings.folder, reference.folder) == ""


def test_cut_at_every_byte_of_its_last_line_a_file_is_mended_to_the_line_before(tmp_path: Path) -> None:
    lines = [SampleRecord(sample_id=k, digest="d", answer="ä\u2028 \\n", kept_tokens=(1, k)).to_line() for k in (1, 2)]
    whole, first = "".join(lines).encode(), lines[0].encode()
    path = tmp_path / "samples.jsonl"
    for cut in range(len(first) + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert list(read_records(path)) == ["1"], f"cut after {cut - len(first)} bytes"
        assert path.read_bytes() == whole[:cut], "reading changes nothing"
        assert mend_records(path)
        assert path.read_bytes() == first
    path.write_bytes(whole)
    assert not mend_records(path)
