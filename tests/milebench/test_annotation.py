"""What is wrong with a dataset on disk is said exactly."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from benchmarks.composition import choices_of
from benchmarks.evaluation.settings import read_settings
from benchmarks.milebench import DATASETS, build_prompt, milebench_benchmark, read_annotation
from benchmarks.milebench.annotation import read_annotation_file
from lookm.errors import LookmError
from lookm.locations import CONFIGS
from tests.milebench.golden import byte_tokenizer
from tests.milebench.original_layout import write_milebench

GOOD: dict[str, Any] = {
    "meta_data": {"task_instruction": ["Look. "], "question_type": "multi-choice"},
    "data": [
        {
            "sample_id": sample_id,
            "task_instruction_id": 0,
            "response": "Yes",
            "image_quantity_level": "Few",
            "task_instance": {
                "context": "{image#1}?",
                "images_path": ["a/0.jpg"],
                "choice_list": ["Yes", "No"],
                "combined_1_images": ["0.jpg"],
            },
        }
        for sample_id in (0, "1")
    ],
}


def write(root: Path, content: object, name: str = "TQA.json") -> Path:
    folder = root / "TQA"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder / name


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = copy.deepcopy(GOOD)
    change(content)
    return content


def test_a_good_annotation_comes_back_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert read_annotation(tmp_path, "TQA") == GOOD
    assert read_annotation(tmp_path, "TQA", combine_image=1) == GOOD


@pytest.mark.parametrize(
    ("options", "name"), [({"adversarial": True}, "TQA-adv.json"), ({"combine_image": 4}, "TQA_combined_4.json")]
)
def test_variants_lie_in_files_of_their_own(tmp_path: Path, options: dict[str, Any], name: str) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(LookmError, match=rf"{name} does not exist; its folder has TQA.json"):
        read_annotation(tmp_path, "TQA", **options)
    content = changed(lambda c: [s["task_instance"].update(combined_4_images=["0.jpg"]) for s in c["data"]])
    write(tmp_path, content, name)
    assert read_annotation(tmp_path, "TQA", **options) == content


def test_adversarial_and_combined_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(LookmError, match="drop one"):
        read_annotation(tmp_path, "TQA", combine_image=2, adversarial=True)
    with pytest.raises(LookmError, match="combine_image is 0"):
        read_annotation(tmp_path, "TQA", combine_image=0)


def test_a_missing_folder_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(LookmError, match=rf"'TQA' is not in .*`lookm download milebench --root {tmp_path}`"):
        read_annotation(tmp_path, "TQA")
    with pytest.raises(LookmError, match=r"get it with `lookm download milebench`"):
        read_annotation(Path("data/MileBench"), "Nothing")


def test_broken_json_names_file_line_and_column(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    path.write_text('{"meta_data": {},\n "data": [}', encoding="utf-8")
    with pytest.raises(LookmError, match=r"TQA\.json: broken JSON at line 2, column 11"):
        read_annotation(tmp_path, "TQA")


def test_a_file_that_is_not_utf8_says_where(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(LookmError, match="not UTF-8 at byte 7"):
        read_annotation(tmp_path, "TQA")


FLAWS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c.pop("meta_data"), r"the annotation has no 'meta_data'"),
    (lambda c: c["meta_data"].pop("task_instruction"), r"meta_data has no 'task_instruction'"),
    (lambda c: c["meta_data"].update(question_type="essay"), r"'question_type' is 'essay'.*open-ended or multi-choice"),
    (lambda c: c.update(data=[]), r"'data' is \[\].*at least one sample"),
    (lambda c: c["data"].append(7), r"data\[2\] is 7, not an object"),
    (lambda c: c["data"][1].pop("sample_id"), r"data\[1\] has no 'sample_id'"),
    (lambda c: c["data"][1].update(sample_id="one"), r"'sample_id' is 'one'; it must be an integer or a string of one"),
    (lambda c: c["data"][1].update(sample_id="0"), r"data\[1\] has the sample_id 0 of data\[0\]"),
    (lambda c: c["data"][1].update(task_instruction_id=1), r"sample '1' .*'task_instruction_id' is 1.*from 0 to 0"),
    (lambda c: c["data"][0].pop("response"), r"sample 0 \(data\[0\]\) has no 'response'"),
    (lambda c: c["data"][0].pop("task_instance"), r"sample 0 .*has no 'task_instance'"),
    (lambda c: c["data"][0]["task_instance"].pop("context"), r"sample 0 .*task_instance has no 'context'"),
    (lambda c: c["data"][0]["task_instance"].update(images_path="0.jpg"), r"'images_path' is '0.jpg'.*list of texts"),
    (lambda c: c["data"][0]["task_instance"].pop("choice_list"), r"sample 0 .*has no 'choice_list'"),
    (lambda c: c["data"][0]["task_instance"].update(choice_list=[1]), r"'choice_list' is \[1\].*list of texts"),
]


@pytest.mark.parametrize(("change", "message"), FLAWS)
def test_a_flaw_names_sample_and_field(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = write(tmp_path, changed(change))
    with pytest.raises(LookmError, match=message) as error:
        read_annotation(tmp_path, "TQA")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("image", ["/etc/passwd", "../../x.jpg", "a/../../x.jpg", "C:\\x.jpg", "..\\x.jpg", "", "a\0b"])
@pytest.mark.parametrize("field", ["images_path", "combined_1_images"])
def test_an_image_outside_the_folder_is_refused(tmp_path: Path, image: str, field: str) -> None:
    path = write(tmp_path, changed(lambda c: c["data"][1]["task_instance"].update({field: [image]})))
    with pytest.raises(LookmError, match=rf"sample '1' .*{field} has .*leaves the image folder"):
        read_annotation_file(path, combine_image=1)


def test_the_benchmark_is_prepared_when_any_of_its_datasets_is_there(tmp_path: Path) -> None:
    benchmark = milebench_benchmark(tmp_path / "MileBench")
    assert (benchmark.name, len(benchmark.datasets)) == ("milebench", 29)
    with pytest.raises(LookmError, match=r"does not exist: get it with `lookm download milebench --root"):
        benchmark.prepare()
    benchmark.root.mkdir()
    with pytest.raises(LookmError, match=r"none of MileBench's 29 datasets"):
        benchmark.prepare()
    path = write(benchmark.root, GOOD)
    benchmark.prepare()
    assert path.is_file()


def test_instructions_may_be_an_object(tmp_path: Path) -> None:
    def with_object(content: dict[str, Any]) -> None:
        content["meta_data"]["task_instruction"] = {"a": "Look. ", "7": "Read. "}
        for sample, key in zip(content["data"], ("a", 7), strict=True):
            sample["task_instruction_id"] = key

    write(tmp_path, changed(with_object))
    annotation = read_annotation(tmp_path, "TQA")
    assert annotation["meta_data"]["task_instruction"] == ["Look. ", "Read. "]
    assert [sample["task_instruction_id"] for sample in annotation["data"]] == [0, 1]
    options: dict[str, Any] = {
        "dataset": "TQA", "tokenizer": byte_tokenizer(), "max_context_len": 999, "n_tokens_per_image": 1,
        "image_dir": tmp_path,
    }  # fmt: skip
    raw = changed(with_object)
    for listed, sample in zip(annotation["data"], raw["data"], strict=True):
        from_list = build_prompt(listed, annotation["meta_data"]["task_instruction"], **options)
        assert from_list == build_prompt(sample, raw["meta_data"]["task_instruction"], **options)
    assert from_list.context.startswith("Read. ")


def test_a_missing_dataset_is_left_out_with_a_line_unless_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_milebench(tmp_path / "MileBench", [info.dataset for info in DATASETS if info.dataset != "SlideVQA"])
    fixed = ["benchmark=milebench", f"data_dir={tmp_path}", "device=cpu"]

    def datasets(*overrides: str) -> list[str]:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose("config", overrides=[*fixed, *overrides], return_hydra_config=True)
        return [info.dataset for info in read_settings(config, choices_of(config)).datasets]

    assert "SlideVQA" not in datasets()
    assert len(datasets()) == 28
    line = f"warning: MileBench in {tmp_path}/MileBench lacks SlideVQA: going on with the other 28 datasets\n"
    assert capsys.readouterr().err == line, "once"
    assert datasets("task=S-2") == ["OCR-VQA", "DocVQA"]
    assert "lacks SlideVQA: going on with the other 2 datasets" in capsys.readouterr().err
    assert datasets("datasets=SlideVQA") == ["SlideVQA"]
    assert capsys.readouterr().err == ""
