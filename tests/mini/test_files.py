"""MileBench-mini on disk: format, sizes, chance levels, and what happens to folders that are not as written."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.benchmark import Benchmark, DatasetInfo
from benchmarks.milebench import build_prompt, read_annotation, score_predictions
from benchmarks.mini import writer
from benchmarks.mini.benchmark import mini_benchmark
from benchmarks.mini.sample import IMAGE, PLACES
from benchmarks.mini.taxonomy import TASKS
from benchmarks.mini.writer import MANIFEST, MiniSettings, evaluation_sample, write_mini
from lookm.errors import LookmError
from lookm.models.tiny import load_tiny

EVERY_DATASET = pytest.mark.parametrize("number", range(len(TASKS)), ids=[task.task for task in TASKS])


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    benchmark = mini_benchmark(tmp_path_factory.mktemp("mini"))
    benchmark.prepare()
    return benchmark


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def score(info: DatasetInfo, annotation: dict[str, Any], answers: list[str]) -> float:
    predictions = [
        {"sample_id": s["sample_id"], "gt_response": s["response"], "pred_response": answer}
        for s, answer in zip(annotation["data"], answers, strict=True)
    ]
    result = score_predictions(info.dataset, annotation, predictions, protocol="official")["eval"]
    return float(result["Rouge-L f" if info.metric == "rouge_l" else "Accuracy"])


def sentences(number: int) -> Iterator[str]:
    for case in range(52):
        yield evaluation_sample(TASKS[number], MiniSettings(), case).questions[0].sentence.strip()


@EVERY_DATASET
def test_a_question_that_stands_first_keeps_its_pictures_and_its_answer(tmp_path: Path, number: int) -> None:
    task = TASKS[number]
    last, first = (mini_benchmark(tmp_path, samples=2, most_images=16, question=place) for place in PLACES)
    assert last.root != first.root
    for benchmark in (last, first):
        benchmark.prepare()
    for a, b in zip(*(read_annotation(bench.root, task.dataset)["data"] for bench in (last, first)), strict=True):
        sample = evaluation_sample(task, MiniSettings(samples=2, most=16), a["sample_id"])
        question = sample.questions[0]
        assert b["response"] == a["response"] == question.response
        assert b["task_instance"].get("choice_list") == a["task_instance"].get("choice_list")
        begin = question.text.replace(IMAGE, "{image#1}")
        assert b["task_instance"]["context"].startswith(begin + "\n")
        pictures = [*question.pictures, *sample.pictures]
        for path, picture in zip(b["task_instance"]["images_path"], pictures, strict=True):
            assert (np.asarray(Image.open(first.root / task.dataset / "images" / path)) == picture).all()


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    small = MiniSettings(samples=2, most=16)
    first, again = (contents(write_mini(tmp_path / name, small)) for name in ("a", "b"))
    other = contents(write_mini(tmp_path / "a", MiniSettings(samples=2, most=16, seed=1)))
    assert first == again
    assert len(first) > 12 * 16
    assert first["MiniWebQA/MiniWebQA.json"] != other["MiniWebQA/MiniWebQA.json"]


@EVERY_DATASET
def test_a_dataset_is_read_back_with_all_its_images(mini: Benchmark, number: int) -> None:
    info, task = mini.datasets[number], TASKS[number]
    annotation = read_annotation(mini.root, info.dataset)
    assert annotation["meta_data"]["question_type"] == task.question_type
    assert len(annotation["data"]) == info.samples == 52
    for case in (0, 7, 51):
        entry, sample = annotation["data"][case], evaluation_sample(task, MiniSettings(), case)
        instance = entry["task_instance"]
        assert instance.get("choice_list", []) == list(sample.questions[0].choices)
        for number_of_image, path in enumerate(instance["images_path"], start=1):
            assert f"{{image#{number_of_image}}}" in instance["context"]
            assert Image.open(mini.root / info.dataset / "images" / path).size == (32, 32)
        first = Image.open(mini.root / info.dataset / "images" / instance["images_path"][0])
        assert (np.asarray(first) == sample.pictures[0]).all()


@EVERY_DATASET
def test_images_take_four_fifths_of_every_prompt_and_nothing_is_cut(mini: Benchmark, number: int) -> None:
    info, backbone = mini.datasets[number], load_tiny()
    annotation = read_annotation(mini.root, info.dataset)
    counts = []
    for sample in annotation["data"]:
        prompt = build_prompt(
            sample,
            annotation["meta_data"]["task_instruction"],
            dataset=info.dataset,
            tokenizer=backbone.tokenizer,
            max_context_len=backbone.max_context_len,
            n_tokens_per_image=backbone.n_tokens_per_image,
            image_dir=mini.root,
        )
        assert (prompt.dropped_images, prompt.dropped_tokens, prompt.notes) == (0, 0, ())
        tokens = backbone.prompt_tokens(prompt.text)
        counts.append(len(prompt.images))
        assert tokens.count(backbone.model.config.image_token_id) == 16 * len(prompt.images)
        assert 16 * len(prompt.images) >= 0.8 * len(tokens)
    assert 8 <= min(counts) <= 16
    assert 30 <= max(counts) <= 40


@EVERY_DATASET
def test_the_models_own_sentence_scores_one_and_another_samples_sentence_does_not(mini: Benchmark, number: int) -> None:
    info = mini.datasets[number]
    annotation = read_annotation(mini.root, info.dataset)
    right = list(sentences(number))
    assert score(info, annotation, right) == pytest.approx(1.0, abs=1e-6)
    assert score(info, annotation, right[1:] + right[:1]) < 0.7


@EVERY_DATASET
def test_guessing_scores_what_is_stated_as_chance(mini: Benchmark, number: int) -> None:
    info, task = mini.datasets[number], TASKS[number]
    annotation = read_annotation(mini.root, info.dataset)
    assert info.chance is not None
    if task.answers is None:
        constants = sorted(set(sentences(number)))
        assert max(score(info, annotation, [c] * info.samples) for c in constants) == pytest.approx(
            info.chance, abs=0.06
        )
        return
    if task.question_type == "open-ended":
        constants = sorted({s["response"] for s in annotation["data"]})
        scores = [score(info, annotation, [constant] * info.samples) for constant in constants]
        assert np.mean(scores) == pytest.approx(info.chance, abs=0.02)
        return
    rng = random.Random(0)
    rounds = [
        score(info, annotation, [rng.choice(s["task_instance"]["choice_list"]) for s in annotation["data"]])
        for _ in range(30)
    ]
    assert np.mean(rounds) == pytest.approx(info.chance, abs=0.05)


def test_data_that_are_there_are_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MiniSettings(samples=1, most=16)
    folder = write_mini(tmp_path, settings)
    monkeypatch.setattr(writer, "write_dataset", None)
    assert write_mini(tmp_path, settings) == folder


def test_an_interrupted_writing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "sha256", stop)
    with pytest.raises(KeyboardInterrupt):
        write_mini(tmp_path, MiniSettings(samples=1, most=16))
    assert list(tmp_path.iterdir()) == []


def test_other_settings_have_a_folder_of_their_own() -> None:
    changes = (
        MiniSettings(),
        MiniSettings(seed=1),
        MiniSettings(samples=3),
        MiniSettings(most=20),
        MiniSettings(question="first"),
    )
    assert len({settings.folder for settings in changes}) == 5


@pytest.mark.parametrize("damage", ["annotation", "manifest", "settings", "dataset"])
def test_a_folder_that_is_not_as_written_is_refused_with_the_way_out(tmp_path: Path, damage: str) -> None:
    settings = MiniSettings(samples=1, most=16)
    folder = write_mini(tmp_path, settings)
    annotation = folder / "MiniWebQA" / "MiniWebQA.json"
    if damage == "annotation":
        annotation.write_text(annotation.read_text().replace("red", "blue") + " ")
    elif damage == "manifest":
        (folder / MANIFEST).write_text('{"version": 1')
    elif damage == "settings":
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["settings"]["samples"] = 2
        (folder / MANIFEST).write_text(json.dumps(manifest))
    else:
        annotation.unlink()
    with pytest.raises(LookmError, match=r"delete .* to have it written again") as error:
        write_mini(tmp_path, settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"samples": 2.5}, "samples is 2.5; give a whole number"),
        ({"most_images": "many"}, "most is 'many'; give a whole number"),
        ({"samples": 100_000_000_000}, "samples is 100000000000; give 1 to 10000"),
        ({"most_images": 49}, "most is 49 images; give a number from 14 to 48"),
        ({"fewest_images": 0}, "fewest is 0"),
        ({"question": "middle"}, "question is 'middle'; it stands last or first"),
        ({"seed": 1_000_000}, "seed 1000000 is not one of the evaluation's"),
    ],
)
def test_sizes_that_cannot_be_had_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(LookmError, match=message):
        mini_benchmark(tmp_path, **change)
