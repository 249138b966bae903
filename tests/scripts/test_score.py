"""`lookm score` on every form of input, and its errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.milebench.annotation import digest, read_annotation
from scripts.score import main
from tests.milebench.golden import load_scores
from tests.milebench.original_layout import write_milebench

GOLDEN = {case["dataset"]: case for case in load_scores()}
NAMES = ("ObjectExistence", "CLEVR-Change", "TextNeedleInAHaystack")


@pytest.fixture
def milebench(tmp_path: Path) -> Path:
    """Three golden datasets as MileBench lays them out."""
    for name in NAMES:
        _write(tmp_path / "MileBench" / name / f"{name}.json", GOLDEN[name]["annotation"])
    return tmp_path / "MileBench"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's results for them."""
    for name in NAMES:
        _write(tmp_path / "results" / "run" / name / "pred.json", GOLDEN[name]["predictions"])
    return tmp_path / "results" / "run"


def _write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def score(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    """Exit status, printed lines without the rules of tables, and standard error of the command."""
    status = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return status, [line for line in output.out.splitlines() if not line.startswith("─")], output.err


def test_a_runs_folder_gives_an_aligned_table_and_means(
    run: Path, milebench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines, errors = score(capsys, run, "--annotations", milebench)
    assert (status, errors) == (0, "")
    assert lines[0].split() == [
        "dataset",
        "task",
        "metric",
        "n",
        "missing",
        "official",
        "repaired",
        "rouge",
        "rouge-score",
    ]
    assert [line.split() for line in lines[1:4]] == [
        ["ObjectExistence", "T-2", "accuracy", "60", "0", "0.5667", "0.6667", "-", "-"],
        ["CLEVR-Change", "S-3", "ROUGE-L", "60", "0", "0.5874", "0.5729", "0.5874", "0.5729"],
        ["TextNeedleInAHaystack", "N-1", "accuracy", "60", "0", "0.3500", "0.5333", "-", "-"],
    ]
    assert len({len(line) for line in lines[:4]}) == 1
    assert [line.split() for line in lines[5:]] == [
        ["task", "datasets", "official", "repaired"],
        ["T-2", "1", "of", "4", "0.5667", "0.6667"],
        ["S-3", "1", "of", "3", "0.5874", "0.5729"],
        ["N-1", "1", "of", "1", "0.3500", "0.5333"],
        ["NH", "1", "of", "2", "0.3500", "0.5333"],
    ]


@pytest.mark.parametrize("protocol", ["official", "repaired"])
def test_one_protocol_has_one_column(
    run: Path, milebench: Path, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines, _ = score(capsys, run, "--annotations", milebench, "--protocol", protocol)
    assert lines[0].split()[5:] == [protocol, "rouge", "rouge-score"]


@pytest.mark.parametrize("part", ["ObjectExistence", "ObjectExistence/pred.json"])
def test_one_dataset_needs_only_its_own_annotation(
    run: Path, milebench: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    annotation = milebench / "ObjectExistence" / "ObjectExistence.json"
    from_root = score(capsys, run / part, "--annotations", milebench)
    assert from_root == score(capsys, run / part, "--annotations", annotation)
    assert len(from_root[1]) == 2


def test_a_dataset_is_picked_from_a_folder(run: Path, milebench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_name = score(capsys, run, "--annotations", milebench, "--dataset", "CLEVR-Change")
    by_annotation = score(capsys, run, "--annotations", milebench / "CLEVR-Change" / "CLEVR-Change.json")
    assert by_name == by_annotation
    assert by_name[1][1].startswith("CLEVR-Change")


def test_a_stray_file_is_named_by_the_option(
    tmp_path: Path, milebench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _write(tmp_path / "mine.json", GOLDEN["ObjectExistence"]["predictions"])
    status, lines, _ = score(capsys, path, "--annotations", milebench, "--dataset", "ObjectExistence")
    assert status == 0
    assert "0.5667" in lines[1]


def test_a_file_may_hold_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "case.json", GOLDEN["CLEVR-Change"])
    status, lines, _ = score(capsys, path)
    assert status == 0
    assert lines[1].split()[-2:] == ["0.5874", "0.5729"]
    assert len(lines) == 2


def test_write_puts_the_official_evaluation_beside_the_predictions(
    run: Path, milebench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score(capsys, run, "--annotations", milebench)
    assert not list(run.glob("*/eval*.json"))
    score(capsys, run, "--annotations", milebench, "--protocol", "repaired", "--write")
    for name in NAMES:
        for part in ("eval", "eval_score"):
            assert json.loads((run / name / f"{part}.json").read_text()) == GOLDEN[name]["expected"][part]


def test_json_holds_every_samples_score(
    run: Path, milebench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score(capsys, run, "--annotations", milebench, "--json", tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert [entry["dataset"] for entry in content] == list(NAMES)
    assert content[0]["official"]["extracted"] == GOLDEN["ObjectExistence"]["expected"]["extracted"]
    assert len(content[1]["repaired"]["scores"]) == 60


def test_a_subset_says_how_much_is_missing(run: Path, milebench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(run / "ObjectExistence" / "pred.json", GOLDEN["ObjectExistence"]["predictions"][:20])
    _, lines, _ = score(capsys, run, "--annotations", milebench)
    assert lines[1].split()[3:5] == ["20", "40"]


def test_repetitions_and_other_truths_are_warned_of(
    run: Path, milebench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records: list[dict[str, Any]] = [dict(record) for record in GOLDEN["CLEVR-Change"]["predictions"]]
    records[1]["gt_response"] = "something else"
    _write(run / "CLEVR-Change" / "pred.json", [*records, records[0]])
    status, _, errors = score(capsys, run, "--annotations", milebench)
    assert status == 0
    assert errors.splitlines() == [
        "warning: CLEVR-Change: 1 predictions are repeated and count once",
        "warning: CLEVR-Change: 1 predictions have another gt_response than the annotation "
        "and are scored against theirs, as in MileBench; is it the right annotation?",
    ]


def test_wrong_input_is_one_line_and_status_2(
    run: Path, milebench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("[{]")
    half = _write(tmp_path / "half.json", {"predictions": []})
    whole = _write(tmp_path / "whole.json", GOLDEN["CLEVR-Change"])
    wrong: dict[str, tuple[object, ...]] = {
        "does not exist; give a run's folder": (tmp_path / "nothing", "--annotations", milebench),
        "File name too long": ("a" * 5000, "--annotations", milebench),
        "it holds the runs run: give one of them": (run.parent, "--annotations", milebench),
        "needs --annotations": (run,),
        "has no predictions for 'TQA'": (run, "--annotations", milebench, "--dataset", "TQA"),
        "'TQA' is not in": (run / "CLEVR-Change", "--annotations", milebench, "--dataset", "TQA"),
        "broken JSON at line 1, column 3": (broken, "--annotations", milebench, "--dataset", "CLEVR-Change"),
        "has predictions but no 'dataset'": (half,),
        "--write needs a pred.json": (whole, "--write"),
        "half.json": (whole, "--json", half / "out.json"),
        "lookm download milebench --root": (run, "--annotations", tmp_path / "elsewhere"),
    }
    for message, arguments in wrong.items():
        status, _, errors = score(capsys, *arguments)
        assert status == 2
        assert errors.startswith("error: ")
        assert message in errors
        assert errors.count("\n") == 1


@pytest.fixture
def adversarial_run(tmp_path: Path) -> tuple[Path, Path]:
    """A MileBench folder and a run over its adversarial TQA, all answers right there and wrong in the plain samples."""
    write_milebench(tmp_path / "data", ["TQA"])
    plain = json.loads((tmp_path / "data" / "TQA" / "TQA.json").read_text())
    for sample in plain["data"]:
        sample["response"] = "both"
    _write(tmp_path / "data" / "TQA" / "TQA.json", plain)
    annotation = read_annotation(tmp_path / "data", "TQA", adversarial=True)
    about = {
        "configuration": {"benchmark": {"name": "milebench", "adversarial": True, "combine_image": None}},
        "data": {"TQA": digest(annotation)},
    }
    run = tmp_path / "runs" / "adversarial"
    _write(run / "run.json", about)
    answers = [{"sample_id": n, "pred_response": "the left one", "gt_response": "the left one"} for n in range(3)]
    _write(run / "TQA" / "pred.json", answers)
    return run, tmp_path / "data"


def test_an_adversarial_run_is_scored_against_the_adversarial_samples(
    adversarial_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = adversarial_run
    status, lines, errors = score(capsys, run, "--annotations", data, "--write")
    assert (status, errors) == (0, "")
    assert lines[1].split()[5:7] == ["1.0000", "1.0000"]
    assert json.loads((run / "TQA" / "eval.json").read_text())["Accuracy"] == 1


def test_another_annotation_than_the_runs_is_refused_and_nothing_is_overwritten(
    adversarial_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = adversarial_run
    score(capsys, run, "--annotations", data, "--write")
    before = {path: path.read_bytes() for path in run.rglob("*.json")}
    changed = json.loads((data / "TQA" / "TQA-adv.json").read_text())
    changed["data"][0]["response"] = "both"
    _write(data / "TQA" / "TQA-adv.json", changed)
    for annotations in (data, data / "TQA" / "TQA.json", data / "TQA" / "TQA-adv.json"):
        status, _, errors = score(capsys, run, "--annotations", annotations, "--write")
        assert status == 2
        assert "answered another annotation than TQA's in" in errors
        assert errors.count("\n") == 1
    assert {path: path.read_bytes() for path in run.rglob("*.json")} == before
