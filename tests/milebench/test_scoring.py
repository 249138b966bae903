"""Scores are MileBench's to the last digit, and incomplete or mistaken predictions are counted or refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.milebench import image_quantity_level, score_predictions, write_evaluation
from benchmarks.milebench.results import read_predictions
from benchmarks.milebench.scoring import PROTOCOLS, answer_fault, chance_level
from lookm.errors import LookmError
from tests.milebench.golden import load_scores
from tests.milebench.original_layout import annotation_of

CLEVR = Path(__file__).resolve().parents[3] / "shared" / "golden" / "scoring" / "clevr_change_llava7b_first100.json"
GOLDEN = {case["dataset"]: case for case in load_scores()}


def scored(case: dict[str, Any], protocol: str = "official") -> dict[str, Any]:
    return score_predictions(case["dataset"], case["annotation"], case["predictions"], protocol=protocol)


def small() -> dict[str, Any]:
    """Three yes-or-no samples, answered Yes, No, Yes; the truth is always Yes."""
    samples = [
        {
            "sample_id": number,
            "response": "Yes",
            "task_instance": {"context": "", "images_path": [""] * (5 + number), "choice_list": ["Yes", "No"]},
        }
        for number in range(3)
    ]
    records = [
        {"sample_id": number, "pred_response": answer, "gt_response": "Yes"}
        for number, answer in enumerate(("Yes", "No", "Yes"))
    ]
    meta = {"question_type": "multi-choice", "task_instruction": [""]}
    return {"dataset": "TQA", "annotation": {"meta_data": meta, "data": samples}, "predictions": records}


@pytest.mark.parametrize("dataset", GOLDEN)
def test_golden_scores_are_equal_byte_for_byte(dataset: str) -> None:
    result = scored(GOLDEN[dataset])
    for name, expected in GOLDEN[dataset]["expected"].items():
        assert json.dumps(result[name]) == json.dumps(expected)
    assert ("extracted" in result) == ("extracted" in GOLDEN[dataset]["expected"])


@pytest.mark.skipif(not CLEVR.exists(), reason="the published answers are not part of this repository")
def test_the_published_clevr_change_answers_score_as_published() -> None:
    case = json.loads(CLEVR.read_text(encoding="utf-8"))
    result = scored(case)
    assert json.dumps(result["eval"]) == json.dumps(case["expected"]["eval"])
    assert json.dumps(result["eval_score"]) == json.dumps(case["expected"]["eval_score"])
    assert result["rouge"]["rouge_score"] > result["rouge"]["rouge"]
    assert scored(case, "repaired")["eval"]["Rouge-L f"] == result["rouge"]["rouge_score"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dataset", GOLDEN)
def test_scoring_leaves_its_inputs_alone(dataset: str, protocol: str) -> None:
    case = copy.deepcopy(GOLDEN[dataset])
    scored(case, protocol)
    assert case == GOLDEN[dataset]


def test_both_protocols_return_the_same_form() -> None:
    for case in GOLDEN.values():
        official, repaired = (scored(case, protocol) for protocol in PROTOCOLS)
        assert official.keys() == repaired.keys()
        assert official["eval"].keys() == repaired["eval"].keys()
        assert len(repaired["eval_score"]) == len(case["predictions"])


@pytest.mark.parametrize(
    ("count", "level"), [(0, "Few"), (5, "Few"), (6, "Medium"), (31, "Medium"), (32, "Many"), (109, "Many")]
)
def test_levels_by_number_of_images(count: int, level: str) -> None:
    assert image_quantity_level(count) == level


def test_a_level_is_reported_as_a_mean_and_as_sum_and_count() -> None:
    assert scored(small())["eval"] == {
        "Accuracy": 2 / 3,
        "image_quantity_level-Accuracy": {"Few": 1.0, "Medium": 0.5, "Many": 0},
        "image_quantity_level-Result": {"Few": [1, 1], "Medium": [1, 2], "Many": [0, 0]},
    }


def test_a_subset_is_scored_over_what_was_answered() -> None:
    case = small()
    del case["predictions"][1]
    result = scored(case)
    assert result["eval"]["Accuracy"] == 1.0
    assert result["counts"] == {"samples": 3, "scored": 2, "missing": 1, "repeated": 0, "other_truth": 0}


def test_ids_match_as_numbers_and_as_texts() -> None:
    case = small()
    for record, sample_id in zip(case["predictions"], ("0", "01", 2), strict=True):
        record["sample_id"] = sample_id
    result = scored(case)
    assert result["counts"]["missing"] == 0
    assert [entry["id"] for entry in result["eval_score"]] == ["0", "01", "2"]


def test_a_repeated_prediction_counts_once() -> None:
    case = small()
    case["predictions"].append(dict(case["predictions"][0]))
    result = scored(case)
    assert (result["counts"]["repeated"], len(result["scores"])) == (1, 3)


def test_another_truth_than_the_annotations_is_counted() -> None:
    case = small()
    case["predictions"][1]["gt_response"] = "No"
    result = scored(case)
    assert result["eval"]["Accuracy"] == 1.0
    assert result["counts"]["other_truth"] == 1


def test_the_annotations_truth_stands_in_for_a_missing_one() -> None:
    case = small()
    for record in case["predictions"]:
        del record["gt_response"]
    assert scored(case)["scores"] == [1, 0, 1]


ERRORS: list[tuple[dict[str, Any] | None, str]] = [
    ({"sample_id": 7, "pred_response": "Yes"}, r"TQA: prediction 3 is of sample 7.*\(3 samples\)"),
    ({"sample_id": 0, "pred_response": "No"}, r"TQA: sample 0 has two different predictions"),
    ({"sample_id": 0}, r"prediction 3 \(sample 0\) has no pred_response"),
    ({"sample_id": 0, "pred_response": None}, r"prediction 3 \(sample 0\) has no pred_response"),
    ({"pred_response": "Yes"}, r"prediction 3 \(sample None\) has no sample_id"),
    (None, r"prediction 3 is not an object"),
]


@pytest.mark.parametrize(("record", "message"), ERRORS)
def test_a_mistaken_prediction_is_refused_in_one_line(record: dict[str, Any] | None, message: str) -> None:
    case = small()
    case["predictions"].append(record)
    with pytest.raises(LookmError, match=message) as error:
        scored(case)
    assert "\n" not in str(error.value)


def test_no_predictions_at_all_is_an_error() -> None:
    with pytest.raises(LookmError, match="TQA: there are no predictions"):
        scored({**small(), "predictions": []})


def test_a_truth_that_is_no_choice_is_an_error() -> None:
    case = small()
    case["predictions"][2]["gt_response"] = "Maybe"
    for protocol in PROTOCOLS:
        with pytest.raises(LookmError, match=r"the truth 'Maybe' of sample 2 is none of its choices"):
            scored(case, protocol)


def test_unknown_protocols_and_question_types_are_errors() -> None:
    case = small()
    with pytest.raises(LookmError, match="'strict'; there are: official, repaired"):
        scored(case, "strict")
    case["annotation"]["meta_data"]["question_type"] = "essay"
    with pytest.raises(LookmError, match="'essay'"):
        scored(case)


def test_the_name_decides_before_the_question_type() -> None:
    case = small()
    for record in case["predictions"]:
        record["pred_response"] = "It is Yes!"
    for dataset in ("MiniTextNeedleInAHaystack", "MMCoQA-mini"):
        result = scored({**case, "dataset": dataset})
        assert result["scores"] == [1, 1, 1]
        assert "extracted" not in result


def test_evaluations_are_written_as_the_original_writes_them(tmp_path: Path) -> None:
    write_evaluation(tmp_path, scored(small()))
    assert (tmp_path / "eval.json").read_text() == (
        '{"Accuracy": 0.6666666666666666, "image_quantity_level-Accuracy": {"Few": 1.0, "Medium": 0.5, "Many": 0}, '
        '"image_quantity_level-Result": {"Few": [1, 1], "Medium": [1, 2], "Many": [0, 0]}}'
    )
    assert (tmp_path / "eval_score.json").read_text().startswith('[\n    {\n        "id": "0",\n        "score": "1"\n')
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval.json", "eval_score.json"]


def test_a_folder_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LookmError, match=r"file cannot be written to: (File exists|Not a directory)"):
        write_evaluation(tmp_path / "file", scored(small()))


def test_predictions_are_a_list_of_records(tmp_path: Path) -> None:
    path = tmp_path / "pred.json"
    path.write_text('{"a": 1}')
    with pytest.raises(LookmError, match=r"pred\.json: these are no MileBench predictions"):
        read_predictions(path)
    path.write_text(json.dumps(small()["predictions"]))
    assert read_predictions(path) == small()["predictions"]


def test_an_answer_outside_its_choices_is_found_beforehand_and_chance_follows_from_the_choices() -> None:
    annotation = annotation_of("TQA")
    sample = annotation["data"][1]
    assert answer_fault("TQA", annotation, sample) is None
    assert chance_level("TQA", annotation, sample) == 1 / 3
    sample["response"] = "The left one."  # equal once normalised
    assert answer_fault("TQA", annotation, sample) is None
    sample["response"] = "neither"
    fault = answer_fault("TQA", annotation, sample)
    assert fault == "the right answer 'neither' is none of its choices ('the left one', 'the right one', 'both')"
    with pytest.raises(LookmError, match="is none of its choices"):
        score_predictions("TQA", annotation, [{"sample_id": 1, "pred_response": "both"}])
    for name in ("MMCoQA", "Spot-the-Diff", "TextNeedleInAHaystack"):
        open_ended = annotation_of(name)
        assert answer_fault(name, open_ended, open_ended["data"][0]) is None
        assert chance_level(name, open_ended, open_ended["data"][0]) is None
