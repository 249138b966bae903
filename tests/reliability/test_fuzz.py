"""Whatever data and models say: annotations, prompts and scores either work or are refused in one documented line."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from benchmarks.evaluation.records import SampleRecord
from benchmarks.milebench import PROTOCOLS, build_prompt, score_predictions
from benchmarks.milebench.annotation import check_annotation, digest, read_annotation_file
from benchmarks.milebench.dataset import sample_digest
from benchmarks.milebench.results import check_predictions, read_predictions
from lookm.errors import LookmError
from tests.runner.random_llava import load_random

MANY = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
DATASETS = ("ActionLocalization", "GPR1200", "Spot-the-Diff", "TextNeedleInAHaystack", "Unknown")

TEXTS = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            ["{image#1}", "{image#2}", "{table#1}", "{image#0}", "{image#99999999999}", "<ImageHere>", "<image>", "A",
             "b.", "Choice list:", "\n", " ", "</s>", "é", "中", "\ud800", "\0", "(", "[", "\\", "**", "yes", "A. left"]
        ), max_size=8,
    ).map("".join),
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**4000), st.floats(), TEXTS,
    st.sampled_from(["../x", "/etc/passwd", "a/../../b", "C:\\x", "..", "", ".", "a\0b", "\\\\host\\x", "i/a.png"]),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def annotations(draw: st.DrawFn) -> dict[str, Any]:
    """Annotations as MileBench has them."""
    choice = draw(st.booleans())
    data = []
    for number in range(draw(st.integers(1, 3))):
        images = draw(st.lists(st.sampled_from(["a.png", "b/c.jpg"]), max_size=3))
        instance: dict[str, Any] = {"context": draw(TEXTS), "images_path": images}
        if choice:
            instance["choice_list"] = draw(st.lists(TEXTS, min_size=1, max_size=4))
        response = draw(st.sampled_from(instance["choice_list"])) if choice else draw(st.one_of(TEXTS, st.integers()))
        data.append(
            {"sample_id": number, "task_instruction_id": 0, "response": response, "task_instance": instance,
             "image_quantity_level": draw(st.sampled_from(["Few", "Medium", "Many"]))}
        )  # fmt: skip
    kind = "multi-choice" if choice else "open-ended"
    return {"meta_data": {"task_instruction": [draw(TEXTS)], "question_type": kind}, "data": data}


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[Any]) -> Any:
    """The same with up to three values replaced by something else, or taken away."""
    content = draw(whole)
    for _ in range(draw(st.integers(0, 3))):
        holder = content
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(holder[key], dict | list) and draw(st.booleans()):
                holder = holder[key]
                continue
            if draw(st.booleans()):
                holder[key] = draw(JSON)
            else:
                del holder[key]
            break
    return content


@st.composite
def predictions(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Predictions as a run writes them, for some of three samples."""
    return [
        {
            "sample_id": draw(st.sampled_from([number, str(number)])),
            "pred_response": draw(TEXTS),
            "gt_response": draw(TEXTS),
        }
        for number in draw(st.lists(st.integers(0, 2), max_size=4))
    ]


@lru_cache(maxsize=1)
def tokenizer() -> PreTrainedTokenizerBase:
    return load_random().tokenizer


def refused(content: Any) -> bool:
    """Whether an annotation is refused, in one line."""
    try:
        check_annotation(content)
    except LookmError as error:
        check_line(error)
        return True
    return False


def check_line(error: LookmError, about: str = "") -> None:
    assert str(error)
    assert "\n" not in str(error)
    assert about in str(error)


@given(st.one_of(JSON, damaged(annotations())))
@MANY
def test_an_annotation_is_refused_in_one_line_or_can_be_run(content: Any) -> None:
    if refused(content):
        return
    folder = Path("images")
    assert len(digest(content)) == 16
    instructions = content["meta_data"]["task_instruction"]
    for sample in content["data"]:
        sample_digest(sample, instructions[sample["task_instruction_id"]], folder)
        prompt = build_prompt(
            sample, instructions, dataset="Any", tokenizer=tokenizer(), max_context_len=60, n_tokens_per_image=7,
            image_dir=folder,
        )  # fmt: skip
        assert prompt.text.count("<ImageHere>") == len(prompt.images)
        assert len(prompt.images) + prompt.dropped_images == len(sample["task_instance"]["images_path"])
        for path in prompt.images:
            assert (Path.cwd() / path).resolve().is_relative_to(Path.cwd() / folder)
        record = SampleRecord(
            sample_id=sample["sample_id"], digest="", question=prompt.context, images=(*prompt.images,)
        )
        assert SampleRecord.from_line(record.to_line().encode()) == record


@given(annotations(), st.integers(0, 80), st.integers(1, 50), st.sampled_from(DATASETS))
@MANY
def test_a_prompt_fits_its_context(content: dict[str, Any], room: int, image_tokens: int, dataset: str) -> None:
    if refused(content):
        return
    for sample in content["data"]:
        prompt = build_prompt(
            sample, "", dataset=dataset, tokenizer=tokenizer(), max_context_len=room, n_tokens_per_image=image_tokens,
            image_dir="images",
        )  # fmt: skip
        assert len(prompt.images) * image_tokens <= room


@given(st.binary(max_size=60))
@MANY
def test_bytes_that_are_no_annotation_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    check_file(tmp_path, content)


@given(annotations(), st.data())
@MANY
def test_an_annotation_file_that_is_cut_or_overwritten_is_refused_or_read(
    tmp_path: Path, content: dict[str, Any], data: st.DataObject
) -> None:
    whole = json.dumps(content).encode()
    place = data.draw(st.integers(0, len(whole)))
    junk = data.draw(
        st.one_of(st.binary(max_size=8), st.sampled_from([b"9" * 5000, b"[" * 3000, b"NaN", b"\xff", b"\\u"]))
    )
    rest = whole[place + data.draw(st.integers(0, 20)) :] if data.draw(st.booleans()) else b""
    check_file(tmp_path, whole[:place] + junk + rest)


def check_file(folder: Path, content: bytes) -> None:
    path = folder / "A.json"
    path.write_bytes(content)
    for read in (read_annotation_file, read_predictions):
        try:
            read(path)
        except LookmError as error:
            check_line(error, str(path))


@given(annotations(), damaged(predictions()), st.sampled_from(DATASETS), st.sampled_from(PROTOCOLS))
@MANY
def test_predictions_are_refused_in_one_line_or_scored_from_0_to_1(
    annotation: dict[str, Any], content: Any, dataset: str, protocol: str
) -> None:
    if refused(annotation):
        return
    try:
        check_predictions(content)
        result = score_predictions(dataset, annotation, content, protocol=protocol)
    except LookmError as error:
        check_line(error)
        return
    assert all(0 <= score <= 1 for score in result["scores"])
    assert len(result["scores"]) == result["counts"]["scored"]
    json.dumps(result)


@given(st.binary(max_size=200))
@MANY
def test_bytes_are_a_record_or_a_value_error(content: bytes) -> None:
    try:
        record = SampleRecord.from_line(content)
    except ValueError:
        return
    assert SampleRecord.from_line(record.to_line()) == record
