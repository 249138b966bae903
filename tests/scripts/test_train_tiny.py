"""The tiny models' training: prompts as in the evaluation, exact resumption, a card, one line for wrong input."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.milebench import build_prompt
from benchmarks.mini.pictures import digit_pool
from benchmarks.mini.sample import PLACES, Place, Request
from benchmarks.mini.seeds import evaluation_rng
from benchmarks.mini.taxonomy import TASKS, MiniTask
from benchmarks.mini.writer import annotation_entry
from lookm.errors import LookmError
from lookm.models.backbone import Backbone
from lookm.models.qwen2_5vl import QwenBackbone
from lookm.models.tiny import TEMPLATE, load_tiny
from scripts import train_tiny
from scripts.tiny_training.examples import IGNORED, Vocabulary, collate, draw_batches, draw_example, example, thinned
from scripts.tiny_training.families import FAMILIES, Family, build_model, build_tokenizer
from scripts.tiny_training.loop import STATE, Training, answer_loss, hidden_states, train
from scripts.tiny_training.pictures import GROUPS, KINDS, WORDS, draw_lesson, draw_seen, place_axes, training_pool
from scripts.tiny_training.schedule import CURRICULUM, EVERY_TASK, Stage, stage_at

SEED = 1_000_000
TOKENIZER = build_tokenizer(SEED)
VOCABULARY = Vocabulary.of(TOKENIZER)
SHORT = (
    Stage("see", 3, tokens=24, shares={}),
    Stage("glance", 3, 2, 4, every=16, tokens=300, batches=2),
    Stage("read", 2, 2, 4, every=1, tokens=600, batches=2, see=True),
)
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def new_training(family: Family = FAMILIES["tiny_llava"]) -> Training:
    return Training.begin(build_model(family, TOKENIZER, SEED, micro=True), family, SEED)


def run(training: Training, steps: int) -> list[float]:
    stop = training.step + steps
    return [
        loss
        for _, loss, _ in train(training, SHORT, VOCABULARY, bfloat16=False, until=lambda current: current.step >= stop)
    ]


def tensors(training: Training) -> Iterator[torch.Tensor]:
    yield from training.model.state_dict().values()
    for optimizer in training.optimizers:
        for state in optimizer.state_dict()["state"].values():
            yield from (value for value in state.values() if torch.is_tensor(value))


@EVERY_FAMILY
@pytest.mark.parametrize("stopped_after", [2, 4])
def test_a_resumed_training_ends_exactly_where_an_uninterrupted_one_does(
    tmp_path: Path, family: Family, stopped_after: int
) -> None:
    straight, first, second = (new_training(family) for _ in range(3))
    losses = run(straight, 8)
    begun = run(first, stopped_after)
    first.save(tmp_path)
    second.load(tmp_path)
    assert begun + run(second, 8 - stopped_after) == losses
    assert (second.step, second.seed) == (8, SEED)
    assert all(torch.equal(a, b) for a, b in zip(tensors(straight), tensors(second), strict=True))


@EVERY_FAMILY
def test_training_changes_every_part_of_the_model(family: Family) -> None:
    before, training = build_model(family, TOKENIZER, SEED, micro=True).state_dict(), new_training(family)
    run(training, 8)
    after = training.model.state_dict()
    unused = {"model.vision_tower.post_layernorm.weight", "model.vision_tower.post_layernorm.bias"}
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in unchanged if "position_ids" not in name} <= unused


def test_where_only_the_decoder_learns_the_tower_stays_as_it_is() -> None:
    training = new_training()
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    list(train(training, (Stage("glance", 2, 2, 4, every=16, tokens=300),), VOCABULARY, bfloat16=False))
    changed = {name for name, tensor in training.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any("vision_tower" in name or "multi_modal_projector" in name for name in changed)


@EVERY_FAMILY
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.task)
def test_a_training_prompt_is_the_evaluations_prompt(task: MiniTask, place: Place, family: Family) -> None:
    sample = task.make(Request(evaluation_rng(0, 0, 0), digit_pool("eval"), images=12))
    learnt = example(task, sample, VOCABULARY, place=place)
    prompt = build_prompt(
        annotation_entry(sample, 0, place),
        task.instruction,
        dataset=task.dataset,
        tokenizer=TOKENIZER,
        max_context_len=2000,
        n_tokens_per_image=16,
        image_dir="images",
    )
    training = new_training(family)
    model = training.model.eval().requires_grad_(False)
    processor = family.processor(TOKENIZER)
    kind = QwenBackbone if family is FAMILIES["tiny_qwen"] else Backbone
    processor = getattr(processor, "image_processor", processor)
    backbone = kind("micro", model, TOKENIZER, processor, TEMPLATE, 16, 2000, 16, 8, "micro")
    inputs = backbone.inputs([prompt.text], [[Image.fromarray(picture) for picture in learnt.pictures]])
    asked = inputs["input_ids"][0].tolist()
    answer = [*backbone.encode(sample.questions[0].sentence), TOKENIZER.eos_token_id]
    assert learnt.ids.tolist() == asked + answer
    mine = hidden_states(training, collate([learnt], VOCABULARY, family))[:, : len(asked)]
    model.set_attn_implementation("sdpa")
    theirs = model.model(**inputs, use_cache=False).last_hidden_state
    assert torch.allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.task)
def test_exactly_the_answers_are_learnt(task: MiniTask) -> None:
    rng = np.random.default_rng(0)
    sample = task.make(Request(rng, digit_pool("train"), images=max(6, task.fewest), questions=3))
    learnt = example(task, sample, VOCABULARY)
    assert learnt.ids[1:][learnt.targets[:-1] != IGNORED].tolist() == learnt.targets[learnt.targets != IGNORED].tolist()
    text = TOKENIZER.decode(learnt.targets[learnt.targets != IGNORED])
    assert text == "".join(question.sentence + TOKENIZER.eos_token for question in sample.questions)


@pytest.mark.parametrize(("every", "left"), [(16, 1), (4, 4), (1, 16)])
def test_a_thinned_prompt_keeps_its_words_and_some_tokens_of_each_picture_at_their_places(
    every: int, left: int
) -> None:
    family = FAMILIES["tiny_llava"]
    learnt = draw_example(np.random.default_rng(1), Stage("s", 1, 6, 6), 6, VOCABULARY)
    batch = collate([learnt], VOCABULARY, family, every)
    is_image = learnt.ids == VOCABULARY.image
    assert int((batch.ids == VOCABULARY.image).sum()) == left * len(learnt.pictures)
    assert learnt.ids[batch.positions[0]].tolist() == batch.ids[0].tolist()
    words = batch.ids[0][batch.ids[0] != VOCABULARY.image]
    assert words.tolist() == learnt.ids[~is_image].tolist()
    firsts = np.flatnonzero(is_image)[::every]
    assert batch.positions[0][batch.ids[0] == VOCABULARY.image].tolist() == firsts.tolist()
    assert thinned(is_image, every).sum() == len(words) + len(firsts)


def test_the_first_head_begins_by_looking_at_the_token_before() -> None:
    model = build_model(FAMILIES["tiny_llava"], TOKENIZER, SEED).eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    ids = torch.from_numpy(np.random.default_rng(0).permutation(len(TOKENIZER))[None, :200])
    ids[ids == VOCABULARY.image] = VOCABULARY.pad
    heads = model(input_ids=ids, output_attentions=True).attentions[0][0]  # (H, L, L)
    before = heads.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)  # (H,)
    assert float(before[0]) > 0.8
    assert float(before[1:].max()) < 0.2


def test_the_lesson_is_learnt_when_every_token_is_the_sum_of_its_words_and_places() -> None:
    lesson = draw_lesson(SEED, 0, 64, VOCABULARY.encode)
    embeddings = torch.randn(len(TOKENIZER), 128, generator=torch.Generator().manual_seed(0))
    perfect = lesson.words @ embeddings[lesson.ids] + torch.einsum("nca,caw->nw", lesson.places, place_axes(128))
    loss, right = lesson.loss(perfect[:, None].expand(-1, 16, -1), embeddings)
    wrong, few = lesson.loss(perfect.roll(1, 0)[:, None].expand(-1, 16, -1), embeddings)
    assert right == 1.0
    assert few < 0.6
    assert float(loss) < 0.2 * float(wrong)


def test_every_word_of_a_picture_is_one_token_and_belongs_to_its_kind() -> None:
    assert all(len(VOCABULARY.encode(f" {word}")) == 1 for word in WORDS)
    rng, shown = np.random.default_rng(0), set()
    for _ in range(60 * len(KINDS)):
        seen = draw_seen(rng, training_pool())
        shown |= set(seen.words)
        assert all(abs(place) <= 1 for _, *places in seen.discs for place in places)
        assert all(sum(word in seen.words for word in WORDS[group]) <= 1 + bool(seen.discs) for group in GROUPS)
    assert shown == set(WORDS)


def test_warped_digits_are_drawn_from_the_training_split_alone() -> None:
    pool = training_pool()
    assert pool.indices == digit_pool("train").indices
    rng = np.random.default_rng(0)
    drawn = np.stack([pool.draw(rng, 3) for _ in range(50)])
    assert drawn.shape == (50, 8, 8)
    own = digit_pool("train").images[list(pool.indices[3])]
    assert float(np.abs(drawn.mean(0) - own.mean(0)).mean()) < 0.15
    assert len({picture.tobytes() for picture in drawn}) == 50


def test_a_step_is_a_function_of_seed_and_number() -> None:
    def ids(seed: int, step: int) -> list[list[int]]:
        batches = draw_batches(seed, step, SHORT[1], VOCABULARY, FAMILIES["tiny_llava"])
        return [row for batch in batches for row in batch.ids.tolist()]

    assert ids(SEED, 4) == ids(SEED, 4)
    assert ids(SEED, 4) != ids(SEED, 5)
    assert ids(SEED, 4) != ids(SEED + 1, 4)


@EVERY_FAMILY
def test_padding_and_batching_do_not_change_the_loss(family: Family) -> None:
    training = new_training(family)
    training.model.requires_grad_(False)
    examples = [draw_example(np.random.default_rng(i), SHORT[1], 4, VOCABULARY) for i in range(5)]
    alone = sum(float(answer_loss(training, collate([e], VOCABULARY, family, 4))[0]) for e in examples)
    together = float(answer_loss(training, collate(examples, VOCABULARY, family, 4))[0])
    assert alone == pytest.approx(together, rel=1e-4)


def test_every_stage_has_its_steps_and_the_rate_warms_up_and_falls() -> None:
    total = sum(stage.steps for stage in CURRICULUM)
    assert stage_at(CURRICULUM, 0)[0] is CURRICULUM[0]
    assert stage_at(CURRICULUM, 0)[1] < 0.05 * CURRICULUM[0].rate
    last, rate = stage_at(CURRICULUM, total - 1)
    assert last is CURRICULUM[-1]
    assert rate == pytest.approx(last.final_rate, rel=0.02)
    assert CURRICULUM[-1].every == 1
    assert {task.task for task in TASKS} == set(EVERY_TASK)
    with pytest.raises(IndexError):
        stage_at(CURRICULUM, total)


@pytest.mark.parametrize("model", FAMILIES)
def test_the_script_stops_goes_on_ships_and_writes_a_card(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_tiny, "REPORT_EVERY", 2)
    arguments = [
        *("--micro", "--state", str(tmp_path / "state"), "--output", str(tmp_path / "model"), "--samples", "1"),
        *("--data", str(tmp_path / "data"), "--precision", "float32", "--threads", "1", "--model", model),
    ]
    assert train_tiny.main([*arguments, "--steps", "2", "--seed", str(SEED)], SHORT) == 0
    assert "stopped after 2 of 8 steps" in capsys.readouterr().out
    assert not (tmp_path / "model").exists()
    assert train_tiny.main([*arguments, "--seed", str(SEED)], SHORT) == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "8 optimiser steps" in card
    assert "steps 0 to 2" in card
    assert "steps 2 to 8" in card
    assert "| 4 | glance |" in card
    assert f"--model {model}" in card
    assert all(f"| {task.task} | {task.dataset} |" in card for task in TASKS)
    backbone = load_tiny(path=tmp_path / "model")
    state = torch.load(tmp_path / "state" / STATE, weights_only=True)["model"]
    assert all(torch.equal(tensor, state[name].half()) for name, tensor in backbone.model.half().state_dict().items())
    assert backbone.model.config._attn_implementation == "sdpa"


def test_wrong_input_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    new_training().save(tmp_path)
    state = ["--state", str(tmp_path)]
    for arguments, message in (
        (["--seed", "999999"], "error: seed 999999 is kept for the evaluation: train with one of 1000000 or more\n"),
        (["--device", "cuda"], "error: device cuda: torch sees no GPU here; give --device cpu\n"),
        (["--micro"], f"error: {tmp_path} was begun with seed {SEED}: give --seed {SEED} or another --state\n"),
        (
            ["--seed", str(SEED)],
            f"error: {tmp_path / STATE} cannot be resumed (RuntimeError): delete {tmp_path} to start afresh\n",
        ),
    ):
        assert train_tiny.main([*state, *arguments], SHORT) == 2
        assert capsys.readouterr().err == message


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04"])
def test_a_broken_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(LookmError, match=r"cannot be resumed .*: delete .* to start afresh"):
        new_training().load(tmp_path)
