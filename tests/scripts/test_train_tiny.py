"""The tiny model's training: prompts as in the evaluation, exact resumption, a card, one line for wrong input."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.milebench import build_prompt
from benchmarks.mini.pictures import digit_pool
from benchmarks.mini.sample import Request
from benchmarks.mini.seeds import evaluation_rng
from benchmarks.mini.taxonomy import TASKS, MiniTask
from benchmarks.mini.words import NAMES
from benchmarks.mini.writer import annotation_entry
from lookm.errors import LookmError
from lookm.models.backbone import Backbone
from lookm.models.tiny import TEMPLATE, load_tiny
from scripts import train_tiny
from scripts.tiny_training.architecture import build_image_processor, build_model, build_tokenizer
from scripts.tiny_training.batches import Batch, collate, draw_batches
from scripts.tiny_training.corpus import corpus
from scripts.tiny_training.examples import IGNORED, example
from scripts.tiny_training.exercises import EXERCISES, PICTURE, WORDS
from scripts.tiny_training.loop import STATE, Training, answer_loss, train
from scripts.tiny_training.recall import ALBUM, FIND, MATCH, RECALLS, RECITE
from scripts.tiny_training.schedule import CURRICULUM, EVERY_TASK, Stage, stage_at

SEED = 1_000_000
TOKENIZER = build_tokenizer(corpus(SEED))
VOCABULARY = train_tiny.vocabulary_of(TOKENIZER)
SHORT = (
    Stage("words", 3, 0, 0, tokens=300, batches=1, shares={WORDS: 1.0, RECITE: 1.0}),
    Stage("pictures", 3, 2, 4, tokens=600, batches=2, shares=EVERY_TASK | {PICTURE: 1.0, ALBUM: 1.0}),
)


def new_training() -> Training:
    return Training.begin(build_model(TOKENIZER, SEED, micro=True), SEED)


def run(training: Training, steps: int) -> list[float]:
    stop = training.step + steps
    return [
        loss
        for _, loss, _ in train(training, SHORT, VOCABULARY, bfloat16=False, until=lambda current: current.step >= stop)
    ]


def tensors(training: Training) -> Iterator[torch.Tensor]:
    yield from training.model.state_dict().values()
    for state in training.optimizer.state_dict()["state"].values():
        yield from (value for value in state.values() if torch.is_tensor(value))


@pytest.mark.parametrize("stopped_after", [2, 4])
def test_a_resumed_training_ends_exactly_where_an_uninterrupted_one_does(tmp_path: Path, stopped_after: int) -> None:
    straight, first, second = new_training(), new_training(), new_training()
    losses = run(straight, 6)
    begun = run(first, stopped_after)
    first.save(tmp_path)
    second.load(tmp_path)
    assert begun + run(second, 6 - stopped_after) == losses
    assert (second.step, second.seed) == (6, SEED)
    assert all(torch.equal(a, b) for a, b in zip(tensors(straight), tensors(second), strict=True))


def test_training_changes_every_part_of_the_model() -> None:
    before, training = build_model(TOKENIZER, SEED, micro=True).state_dict(), new_training()
    run(training, 6)
    after = training.model.state_dict()
    unused = {"model.vision_tower.post_layernorm.weight", "model.vision_tower.post_layernorm.bias"}
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in unchanged if "position_ids" not in name} <= unused


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.task)
def test_a_training_prompt_is_the_evaluations_prompt(task: MiniTask) -> None:
    sample = task.make(Request(evaluation_rng(0, 0, 0), digit_pool("eval"), images=12))
    learnt = example(task, sample, VOCABULARY)
    prompt = build_prompt(
        annotation_entry(sample, 0),
        task.instruction,
        dataset=task.dataset,
        tokenizer=TOKENIZER,
        max_context_len=2000,
        n_tokens_per_image=16,
        image_dir="images",
    )
    model = build_model(TOKENIZER, SEED, micro=True)
    backbone = Backbone("micro", model, TOKENIZER, build_image_processor(), TEMPLATE, 16, 2000, 16, 8, "micro")
    inputs = backbone.inputs([prompt.text], [[Image.fromarray(picture) for picture in learnt.pictures]])
    asked = inputs["input_ids"][0].tolist()
    answer = [*backbone.encode(sample.questions[0].sentence), TOKENIZER.eos_token_id]
    assert learnt.ids.tolist() == asked + answer
    batch = collate([learnt], TOKENIZER.pad_token_id)
    assert batch.pixels is not None
    assert torch.allclose(batch.pixels, inputs["pixel_values"], atol=1e-6)


@pytest.mark.parametrize("task", [*TASKS, *EXERCISES.values()], ids=lambda task: task.task)
def test_exactly_the_answers_are_learnt(task: MiniTask) -> None:
    rng = np.random.default_rng(0)
    sample = task.make(
        Request(rng, digit_pool("train"), images=max(6, task.fewest) * (task.task != WORDS), questions=3)
    )
    learnt = example(task, sample, VOCABULARY)
    assert learnt.ids[1:][learnt.targets[:-1] != IGNORED].tolist() == learnt.targets[learnt.targets != IGNORED].tolist()
    text = TOKENIZER.decode(learnt.targets[learnt.targets != IGNORED])
    assert text == "".join(question.sentence + TOKENIZER.eos_token for question in sample.questions)


def test_the_first_head_begins_by_looking_at_the_token_before() -> None:
    model = build_model(TOKENIZER, SEED).eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    ids = torch.from_numpy(np.random.default_rng(0).permutation(len(TOKENIZER))[None, :200])
    ids[ids == VOCABULARY.image] = VOCABULARY.pad
    heads = model(input_ids=ids, output_attentions=True).attentions[0][0]  # (H, L, L)
    before = heads.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)  # (H,)
    assert float(before[0]) > 0.8
    assert float(before[1:].max()) < 0.2


@pytest.mark.parametrize("images", [1, 5, 40])
@pytest.mark.parametrize("name", [RECITE, ALBUM])
def test_a_recall_learns_the_values_that_stand_behind_their_names(name: str, images: int) -> None:
    learnt = RECALLS[name](np.random.default_rng(images), images, VOCABULARY)
    assert learnt.ids[1:][learnt.targets[:-1] != IGNORED].tolist() == learnt.targets[learnt.targets != IGNORED].tolist()
    prompt, answers = str(TOKENIZER.decode(learnt.ids)).split("ANSWER:")
    values = str(TOKENIZER.decode(learnt.targets[learnt.targets != IGNORED])).split()
    said = answers.split()
    assert [word for word in said if word not in NAMES] == values
    asked = [word for word in said if word in NAMES]
    assert all(f" {word}" in prompt for word in asked)
    assert (learnt.ids == VOCABULARY.image).sum() == 16 * len(learnt.pictures)
    assert (len(learnt.pictures) > 0) == (name == ALBUM)
    if name == RECITE:
        assert len(asked) == 20
        assert all(f" {a} {b}." in prompt for a, b in zip(asked, values, strict=True))


@pytest.mark.parametrize("images", [2, 8, 40])
def test_finding_asks_for_one_picture_each_and_learns_the_last_words_alone(images: int) -> None:
    learnt = RECALLS[FIND](np.random.default_rng(images), images, VOCABULARY)
    _, answers = str(TOKENIZER.decode(learnt.ids)).split("ANSWER:")
    words = answers.split()
    triples = [tuple(words[i : i + 3]) for i in range(0, len(words), 3)]
    told = {(colour, what): last for colour, what, last in triples}
    assert len(told) <= len(learnt.pictures) <= 12
    assert all(told[colour, what] == last for colour, what, last in triples)
    values = str(TOKENIZER.decode(learnt.targets[learnt.targets != IGNORED])).split()
    assert values == [last for _, _, last in triples]
    assert (learnt.ids == VOCABULARY.image).sum() == 16 * len(learnt.pictures)


@pytest.mark.parametrize("images", [2, 40])
def test_matching_learns_names_behind_pictures_of_the_same_thing(images: int) -> None:
    learnt = RECALLS[MATCH](np.random.default_rng(images), images, VOCABULARY)
    values = str(TOKENIZER.decode(learnt.targets[learnt.targets != IGNORED])).split()
    named = len(learnt.pictures) - 8
    assert len(values) == 8
    assert set(values) <= set(NAMES)
    assert 2 <= named <= 12
    assert (learnt.ids == VOCABULARY.image).sum() == 16 * len(learnt.pictures)


def test_a_step_is_a_function_of_seed_and_number() -> None:
    def ids(seed: int, step: int) -> list[list[int]]:
        return [row for batch in draw_batches(seed, step, SHORT[1], VOCABULARY) for row in batch.ids.tolist()]

    assert ids(SEED, 4) == ids(SEED, 4)
    assert ids(SEED, 4) != ids(SEED, 5)
    assert ids(SEED, 4) != ids(SEED + 1, 4)


def test_padding_and_batching_do_not_change_the_loss() -> None:
    model = build_model(TOKENIZER, SEED, micro=True).requires_grad_(False)
    batches = draw_batches(SEED, 4, SHORT[1], VOCABULARY)
    rows = [
        Batch(batch.ids[i : i + 1, : int((batch.ids[i] != VOCABULARY.pad).sum())], batch.targets[i : i + 1], None)
        for batch in draw_batches(SEED, 0, SHORT[0], VOCABULARY)
        for i in range(len(batch.ids))
    ]
    alone = sum(float(answer_loss(model, Batch(row.ids, row.targets[:, : row.ids.shape[1]], None))[0]) for row in rows)
    together = sum(float(answer_loss(model, batch)[0]) for batch in draw_batches(SEED, 0, SHORT[0], VOCABULARY))
    assert alone == pytest.approx(together, rel=1e-4)
    assert len(batches) == 2


def test_every_stage_has_its_steps_and_the_rate_warms_up_and_falls() -> None:
    total = sum(stage.steps for stage in CURRICULUM)
    assert stage_at(CURRICULUM, 0)[0] is CURRICULUM[0]
    assert stage_at(CURRICULUM, 0)[1] < 0.05 * CURRICULUM[0].rate
    last, rate = stage_at(CURRICULUM, total - 1)
    assert last is CURRICULUM[-1]
    assert rate == pytest.approx(last.final_rate, rel=0.02)
    with pytest.raises(IndexError):
        stage_at(CURRICULUM, total)


def test_the_script_trains_ships_and_writes_a_card(tmp_path: Path) -> None:
    arguments = [
        *("--micro", "--state", str(tmp_path / "state"), "--output", str(tmp_path / "model"), "--samples", "1"),
        *("--data", str(tmp_path / "data"), "--precision", "float32", "--threads", "1"),
    ]
    assert train_tiny.main([*arguments, "--steps", "2"], SHORT) == 0
    assert train_tiny.main([*arguments, "--steps", "4", "--resume"], SHORT) == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "4 optimiser steps" in card
    assert "steps 0 to 2" in card
    assert "steps 2 to 4" in card
    assert all(f"| {task.task} | {task.dataset} |" in card for task in TASKS)
    backbone = load_tiny(path=tmp_path / "model")
    state = torch.load(tmp_path / "state" / STATE, weights_only=True)["model"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.model.state_dict().items())
    assert backbone.model.config._attn_implementation == "sdpa"


def test_wrong_input_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / STATE).write_bytes(b"")
    for arguments, message in (
        (["--seed", "999999"], "error: seed 999999 is kept for the evaluation: train with one of 1000000 or more\n"),
        ([], f"error: {tmp_path} holds a training state: give --resume, or another --state\n"),
    ):
        assert train_tiny.main(["--state", str(tmp_path), *arguments], SHORT) == 2
        assert capsys.readouterr().err == message


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04"])
def test_a_broken_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(LookmError, match=r"cannot be resumed .*: delete .* to start afresh"):
        new_training().load(tmp_path)
