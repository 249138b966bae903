"""Every kind of flaw is found where it is, and nowhere else; lengths are those of the prompts of a run."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.benchmark import DatasetInfo
from benchmarks.milebench import build_prompt, milebench_benchmark
from benchmarks.milebench.dataset import read_dataset
from benchmarks.milebench.inspection import KINDS, Finding, Inspected, inspect_dataset
from benchmarks.milebench.lengths import Measure, measure_lengths, read_measure
from lookm.errors import LookmError
from tests.milebench.golden import byte_tokenizer
from tests.milebench.original_layout import annotation_of, dump, write_dataset, write_milebench

Change = Callable[[dict[str, Any]], object]
INFO = DatasetInfo("TQA", "S-1", "accuracy", 3, None)


def inspect(root: Path, **options: Any) -> Inspected:
    return inspect_dataset(milebench_benchmark(root), INFO, **options)


def kinds(findings: Sequence[Finding]) -> list[tuple[str, str | None]]:
    return [(finding.kind, finding.sample_id) for finding in findings]


def write(root: Path, change: Change) -> None:
    annotation = annotation_of("TQA")
    write_dataset(root, "TQA", annotation)
    change(annotation)
    dump(root / "TQA" / "TQA.json", annotation)


def instance(annotation: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = annotation["data"][1]["task_instance"]
    return found


def test_a_sound_dataset_has_no_findings(tmp_path: Path) -> None:
    write_milebench(tmp_path, ["TQA"])
    found = inspect(tmp_path)
    assert found.findings == ()
    assert (found.samples, found.images, found.fewest_images, found.most_images) == (3, 6, 1, 3)
    assert found.lengths is None


FLAWS: list[tuple[Change, str, str]] = [
    (lambda a: instance(a).update(context="{image#1}{table#2}{image#3}"), "placeholder_without_image", "{image#3}"),
    (lambda a: instance(a).update(context="{image#1}{table#2}<ImageHere>"), "placeholder_without_image", "text has <"),
    (lambda a: instance(a).update(context="{image#1}{image#2}{table#1}"), "repeated_placeholder", "{image#1} stands"),
    (lambda a: instance(a).update(context="{image#1}?"), "image_without_placeholder", "1 of 2 images, the first"),
    (lambda a: instance(a).update(choice_list=["the left one", " - "]), "empty_choice", "' - '"),
    (lambda a: instance(a).update(choice_list=["the left one", "3.5", "3.5"]), "duplicate_choice", "'3.5', '3.5'"),
    (lambda a: instance(a).update(choice_list=["the left one", "Yes!", "yes"]), "duplicate_choice", "'Yes!', 'yes'"),
    (lambda a: instance(a).update(choice_list=["the left one", "1", "12"]), "prefix_choice", "'1' and '12'"),
    (lambda a: a["data"][1].update(response="neither"), "answer_not_in_choices", "'neither' is none of 'the left one'"),
    (lambda a: instance(a).update(images_path=["1/0.png", "1/9.png"]), "missing_image", "image 9.png is missing"),
    (lambda a: instance(a).update(images_path=["1/0.png", "9" * 5000]), "missing_image", "File name too long"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "kind", "detail"), FLAWS, ids=[f"{kind}-{number}" for number, (_, kind, _) in enumerate(FLAWS)]
)
def test_a_flaw_is_found_in_its_sample(tmp_path: Path, change: Change, kind: str, detail: str) -> None:
    write(tmp_path, change)
    findings = inspect(tmp_path).findings
    assert kinds(findings) == [(kind, "1")]
    assert detail in findings[0].detail


@pytest.mark.parametrize("content", [b"GIF?", b"", "half"])
def test_an_unreadable_picture_is_found(tmp_path: Path, content: bytes | str) -> None:
    write_milebench(tmp_path, ["TQA"])
    assert inspect(tmp_path).findings == ()
    path = tmp_path / "TQA" / "images" / "2" / "1.png"
    path.write_bytes(path.read_bytes()[:-40] if isinstance(content, str) else content)
    assert kinds(inspect(tmp_path).findings) == [("unreadable_image", "2")]
    assert inspect(tmp_path, limit=2).findings == (), "a sample that is not asked for is not looked at"


def test_missing_and_broken_datasets_and_wrong_counts_are_findings(tmp_path: Path) -> None:
    assert kinds(inspect(tmp_path).findings) == [("missing_dataset", None)]
    write(tmp_path, lambda annotation: annotation["data"].pop())
    assert kinds(inspect(tmp_path).findings) == [("sample_count", None)]
    (tmp_path / "TQA" / "TQA.json").write_text("{")
    (finding,) = inspect(tmp_path).findings
    assert (finding.kind, "broken JSON" in finding.detail) == ("missing_dataset", True)


def test_adversarial_samples_that_are_the_normal_ones_are_found(tmp_path: Path) -> None:
    write_milebench(tmp_path, ["TQA"])
    dump(tmp_path / "TQA" / "TQA-adv.json", annotation_of("TQA"))
    assert kinds(inspect(tmp_path).findings) == [("adversarial_same", None)]
    (tmp_path / "TQA" / "TQA-adv.json").write_text("{")
    assert kinds(inspect(tmp_path).findings) == [("missing_dataset", None)]


def test_an_open_question_needs_an_answer(tmp_path: Path) -> None:
    annotation = annotation_of("IEdit")
    annotation["data"][0]["response"] = " . "
    write_dataset(tmp_path, "IEdit", annotation)
    info = DatasetInfo("IEdit", "S-3", "rouge_l", 3, None)
    findings = inspect_dataset(milebench_benchmark(tmp_path), info).findings
    assert kinds(findings) == [("empty_answer", "0")]


def test_pictures_are_read_by_several_threads_with_the_same_result(tmp_path: Path) -> None:
    write(tmp_path, FLAWS[-1][0])
    assert inspect(tmp_path, readers=2).findings == inspect(tmp_path).findings


def test_every_kind_is_told(tmp_path: Path) -> None:
    tested = {kind for _, kind, _ in FLAWS}
    whole = {"missing_dataset", "sample_count", "unreadable_image", "empty_answer", "adversarial_same"}
    assert set(KINDS) == tested | whole


def test_lengths_are_those_of_the_prompts(tmp_path: Path) -> None:
    write_milebench(tmp_path, ["TQA"])
    measure = Measure("tiny", "bytes", byte_tokenizer(), n_tokens_per_image=100, max_context_len=330)
    dataset = read_dataset(milebench_benchmark(tmp_path), INFO, None)
    lengths = measure_lengths(dataset, measure)
    whole = [
        build_prompt(
            sample, dataset.instruction(sample), dataset="TQA", tokenizer=byte_tokenizer(), max_context_len=9999,
            n_tokens_per_image=100, image_dir=tmp_path,
        )
        for sample in dataset.samples.values()
    ]  # fmt: skip
    sizes = [len(prompt.context.encode()) + (100 - len("<ImageHere>")) * len(prompt.images) for prompt in whole]
    assert (lengths.most, lengths.mean) == (max(sizes), pytest.approx(sum(sizes) / 3))
    cut = [
        build_prompt(
            sample, dataset.instruction(sample), dataset="TQA", tokenizer=byte_tokenizer(), max_context_len=330,
            n_tokens_per_image=100, image_dir=tmp_path,
        )
        for sample in dataset.samples.values()
    ]  # fmt: skip
    assert lengths.images_lost == sum(prompt.dropped_images for prompt in cut) > 0
    assert lengths.tokens_lost == sum(prompt.dropped_tokens for prompt in cut)
    assert lengths.cut == sum(bool(prompt.dropped_images or prompt.dropped_tokens) for prompt in cut)
    assert sum(lengths.groups.values()) == 3
    none_left = measure_lengths(dataset, Measure("tiny", "bytes", byte_tokenizer(), 1000, 330))
    assert none_left.groups["text only"] == 3


def test_a_models_measure_is_its_tokenizer_and_configuration() -> None:
    measure = read_measure("tiny")
    assert (measure.tokenizer_of, measure.n_tokens_per_image, measure.max_context_len) == ("tiny", 16, 2000)


def test_a_tokenizer_that_is_not_here_is_said_with_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        LookmError, match=r"tokenizer of llava7b is not on this disk: .*model llava7b.*--tokenizer tiny"
    ):
        read_measure("llava7b")
    stand_in = read_measure("llava7b", tokenizer="tiny")
    assert (stand_in.model, stand_in.tokenizer_of, stand_in.n_tokens_per_image) == ("llava7b", "tiny", 576)
    for model, tokens in {"mobilevlm3b": 144, "internvl7b": 576, "llava_onevision7b": 730}.items():
        assert read_measure(model, tokenizer="tiny").n_tokens_per_image == tokens
    with pytest.raises(LookmError, match=r"--tokenizer .* has no tokenizer.json"):
        read_measure("tiny", tokenizer=str(tmp_path))
    with pytest.raises(LookmError, match="model 'gpt' is unknown; choose one of"):
        read_measure("gpt")


def test_a_pipe_among_the_images_is_found_without_waiting(tmp_path: Path) -> None:
    write_milebench(tmp_path, ["TQA"])
    (tmp_path / "TQA" / "images" / "1" / "0.png").unlink()
    os.mkfifo(tmp_path / "TQA" / "images" / "1" / "0.png")
    assert kinds(inspect(tmp_path).findings) == [("unreadable_image", "1")]
