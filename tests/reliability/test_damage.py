"""Data that are damaged, or vanish while a run is computed: said in one line, and mended by running again."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation.records import SampleRecord, read_records
from benchmarks.evaluation.run import run
from benchmarks.evaluation.store import RunFolder
from benchmarks.evaluation.verify import difference
from benchmarks.files import read_json
from lookm.errors import LookmError
from lookm.models.backbone import Backbone
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import NEEDLE

ONLY_NEEDLE = f"datasets={NEEDLE}"


def test_a_data_folder_that_vanishes_in_mid_run_stops_it_and_is_not_recorded_as_failed_samples(
    settings_of: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of("model.batch_size=1", ONLY_NEEDLE)
    reference = replace(settings, results_dir=tmp_path / "undisturbed")
    run(reference)
    data, asked = settings.benchmark.root / NEEDLE, 0
    real = Backbone.inputs

    def unplug(backbone: Backbone, prompts: Sequence[str], images: Sequence[Any]) -> Any:
        nonlocal asked
        asked += 1
        if asked == 2:
            data.rename(tmp_path / "away")
        return real(backbone, prompts, images)

    monkeypatch.setattr(Backbone, "inputs", unplug)
    with pytest.raises(LookmError, match=f"{NEEDLE}.* vanished") as error:
        run(settings)
    assert "\n" not in str(error.value)
    there = read_records(settings.folder / NEEDLE / "samples.jsonl")
    assert all(record.answered for record in there.values())
    (tmp_path / "away").rename(data)
    run(settings)
    assert difference(settings.folder, reference.folder) == ""


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_truncated_annotation_is_said_in_one_line(settings_of: MakeSettings, keep: int) -> None:
    settings = settings_of(ONLY_NEEDLE)
    settings.benchmark.prepare()
    annotation = settings.benchmark.root / NEEDLE / f"{NEEDLE}.json"
    annotation.write_text(annotation.read_text()[:keep])
    with pytest.raises(LookmError, match=rf"{NEEDLE}\.json: broken JSON at line 1, column \d+: .*") as error:
        run(settings)
    assert "\n" not in str(error.value)
    assert not settings.folder.exists()


def test_a_run_json_that_is_damaged_is_never_taken_for_another_run(settings_of: MakeSettings) -> None:
    settings = settings_of(ONLY_NEEDLE)
    run(settings)
    path = settings.folder / "run.json"
    path.write_text(path.read_text()[:-20])
    before = (settings.folder / NEEDLE / "samples.jsonl").read_bytes()
    with pytest.raises(LookmError, match=r"has samples but no readable run\.json"):
        run(settings)
    assert (settings.folder / NEEDLE / "samples.jsonl").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}\n{"b": 2}'])
def test_json_that_is_none_reads_as_absent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert not read_json(tmp_path / "run.json")
    assert not RunFolder(tmp_path).exists


def test_damage_in_the_middle_of_samples_is_computed_again(settings_of: MakeSettings, tmp_path: Path) -> None:
    settings = settings_of(ONLY_NEEDLE)
    run(settings)
    run(replace(settings, results_dir=tmp_path / "undisturbed"))
    path = settings.folder / NEEDLE / "samples.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * len(lines[1]) + lines[2] + lines[3].replace(b'"digest"', b'"digits"'))
    assert run(settings).computed == 3, "zeros as a power cut leaves them swallow the line they run into"
    assert difference(settings.folder, tmp_path / "undisturbed" / settings.run) == ""


@pytest.mark.parametrize("name", ["pred.json", "eval.json", "eval_score.json", "repaired.json"])
def test_a_result_file_that_is_damaged_or_gone_is_made_again(settings_of: MakeSettings, name: str) -> None:
    settings = settings_of(ONLY_NEEDLE)
    run(settings)
    file = settings.folder / NEEDLE / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    run(settings)
    assert file.read_bytes() == whole
    file.unlink()
    run(settings)
    assert file.read_bytes() == whole


def test_records_of_an_older_program_are_read_and_those_of_a_newer_one_are_not(tmp_path: Path) -> None:
    line = json.loads(SampleRecord(sample_id=1, digest="d", answer="yes").to_line())
    older = {name: value for name, value in line.items() if name != "notes"}
    assert SampleRecord.from_line(json.dumps(older)) == SampleRecord(sample_id=1, digest="d", answer="yes")
    for broken in ({**line, "novelty": 1}, {"sample_id": 1}, {**line, "sample_id": [1]}, {**line, "digest": None}, []):
        with pytest.raises(ValueError, match="not a sample record"):
            SampleRecord.from_line(json.dumps(broken))


def test_samples_that_cannot_be_read_are_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "A" / "samples.jsonl").mkdir(parents=True)
    with pytest.raises(LookmError, match=r"samples\.jsonl cannot be read: " + os.strerror(21)):
        RunFolder(tmp_path).records("A")
