"""`scripts.verify` computes samples again from run.json alone, and tells what is not as recorded."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.evaluation.records import SampleRecord, read_records, write_records
from benchmarks.evaluation.run import run
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import RunFolder
from benchmarks.evaluation.verify import settings_of as recorded_settings
from benchmarks.evaluation.verify import timeless
from scripts import verify
from tests.runner.conftest import MakeSettings, settings_of
from tests.runner.small_benchmark import DATASETS, NEEDLE, ROUGE

__all__ = ["settings_of"]


def change(settings: Settings, dataset: str, number: int, **fields: object) -> None:
    """Rewrites one record."""
    path = settings.folder / dataset / "samples.jsonl"
    records: dict[str, SampleRecord] = read_records(path)
    records[str(number)] = replace(records[str(number)], **fields)  # type: ignore[arg-type]
    write_records(path, records, list(records))


def test_a_run_is_computed_again_without_its_command_and_nothing_is_written(
    settings_of: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of("strategy=tp_pmerge", "alpha1=0.2", "semantics=release", "model.batch_size=2")
    run(settings)
    before = {path: path.stat().st_mtime_ns for path in settings.folder.rglob("*")}
    assert verify.main([str(settings.folder)]) == 0
    assert capsys.readouterr().out == "12 of 12 answers computed again: all as recorded\n"
    assert {path: path.stat().st_mtime_ns for path in settings.folder.rglob("*")} == before
    assert recorded_settings(RunFolder(settings.folder), {}).identity == settings.identity


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"answer_tokens": (5, 2)}, "answer_tokens is ("),
        ({"kept_tokens": (1, 1)}, "kept_tokens is ("),
        ({"realised_budget": 0.9}, "realised_budget is 0."),
        ({"question": "What else?"}, "question is 'Look"),
    ],
)
def test_a_changed_record_is_told_in_one_line(
    settings_of: MakeSettings, capsys: pytest.CaptureFixture[str], fields: dict[str, object], told: str
) -> None:
    settings = settings_of()
    run(settings)
    change(settings, ROUGE, 2, **fields)
    assert verify.main([str(settings.folder), "--samples", "100"]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{ROUGE} sample 2: {told}")
    assert " now, recorded is " in first
    assert last == "12 of 12 answers computed again: 1 differences"


def test_times_are_not_compared_and_the_seed_draws_the_samples(
    settings_of: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of()
    run(settings)
    change(settings, NEEDLE, 0, times={"batch": 9})
    assert verify.main([str(settings.folder), "--samples", "100"]) == 0
    for number in range(4):
        change(settings, NEEDLE, number, answer="another")
    told = set()
    for seed in range(4):
        verify.main([str(settings.folder), "--samples", "3", "--seed", str(seed)])
        told.add(tuple(capsys.readouterr().out.splitlines()[:-1]))
    assert len(told) > 1
    assert all(len(lines) <= 3 for lines in told)


def test_a_run_of_few_samples_after_one_of_all_is_verified_in_the_batches_of_all(
    settings_of: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings_of())
    (settings_of().folder / NEEDLE / "samples.jsonl").unlink()
    run(settings_of("limit=1", f"datasets={NEEDLE}"))
    assert verify.main([str(settings_of().folder), "--samples", "99"]) == 0
    assert "9 of 9 answers" in capsys.readouterr().out


def test_other_code_is_pointed_out(settings_of: MakeSettings, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of(f"datasets={NEEDLE}")
    run(settings)
    about = json.loads((settings.folder / "run.json").read_text())
    about["sessions"][0]["code"] = "another"
    (settings.folder / "run.json").write_text(json.dumps(about))
    assert verify.main([str(settings.folder), "--samples", "1"]) == 0
    assert "computed by another state of this program" in capsys.readouterr().err


def test_moved_data_are_found_and_changed_data_refused(
    settings_of: MakeSettings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = settings_of(f"datasets={NEEDLE}")
    run(settings)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert verify.main([str(settings.folder), "--data-dir", str(tmp_path / "moved"), "--samples", "1"]) == 0
    annotation = tmp_path / "moved" / "small" / NEEDLE / f"{NEEDLE}.json"
    annotation.write_text(annotation.read_text().replace("what is it?", "what is that?"))
    assert verify.main([str(settings.folder), "--data-dir", str(tmp_path / "moved")]) == 2
    assert capsys.readouterr().err.count("was computed with other data") == 1


@pytest.mark.parametrize("content", [None, "{}", "[]", '{"format": 1}', '{"format": 1, "configuration": {}}'])
def test_a_folder_that_says_too_little_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert verify.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path} ")
    assert error.count("\n") == 1


def test_two_folders_are_compared_byte_by_byte_times_aside(
    settings_of: MakeSettings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    one = settings_of()
    other = replace(one, results_dir=tmp_path / "other")
    run(one)
    run(other)
    arguments = [str(one.folder), "--against", str(other.folder)]
    assert verify.main(arguments) == 0
    assert capsys.readouterr().out == "the same bytes, times aside\n"
    assert len(timeless(one.folder)) == 1 + 5 * len(DATASETS)
    change(other, NEEDLE, 1, answer="another")
    assert verify.main(arguments) == 1
    assert capsys.readouterr().out == f"{NEEDLE}/samples.jsonl differs in line 2\n"
    (other.folder / "extra").write_text("")
    assert verify.main(arguments) == 1
    assert verify.main([str(one.folder), "--against", str(tmp_path)]) == 2
