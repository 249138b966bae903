"""A conversation goes on from a context that was compressed before its questions were known."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lookm import LookmError, look_once
from lookm.conversation import Conversation
from lookm.kept import kept_positions, positions_in
from lookm.models.backbone import IMAGE_HERE, Backbone
from lookm.models.family import load_backbone
from lookm.models.tiny import load_tiny
from tests.models import modern_checkpoints

CONTEXT = f"Find the fact.\n The badge of ada 7.{IMAGE_HERE * 4} The badge of bob 2."
IMAGES = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue", "white")]
ADA, BOB = "What is the badge of ada?", "What is the badge of bob?"


@lru_cache(maxsize=1)
def tiny() -> Backbone:
    return load_tiny()


@contextmanager
def talk(backbone: Backbone, strategy: str, context: str = CONTEXT, budget: float = 0.3) -> Iterator[Conversation]:
    images = IMAGES[: context.count(IMAGE_HERE)]
    with look_once(backbone.model, strategy, budget=budget) as session:
        session.notes_positions = True
        yield Conversation.about(backbone, session, context, images)


@pytest.mark.parametrize("strategy", ["full", "tp_pmerge", "adakv"])
def test_the_first_answer_is_that_of_the_question_asked_later(strategy: str) -> None:
    backbone = tiny()
    inputs, asked = backbone.inputs_before_questions([CONTEXT], [IMAGES], [(0, f"{CONTEXT} {ADA}")])
    with talk(backbone, strategy) as conversation:
        assert conversation.context.equal(inputs["input_ids"])
        answer = conversation.ask(ADA)
    with look_once(backbone.model, strategy, budget=0.3), torch.no_grad():
        cache = backbone.model(**inputs).past_key_values
        ids = torch.cat([inputs["input_ids"], asked.ids], dim=1)
        output = backbone.model.generate(ids, past_key_values=cache, max_new_tokens=16, do_sample=False)
    assert answer == backbone.answers(output[:, ids.shape[1] :])[0]


def test_later_questions_see_the_conversation_and_a_new_beginning_forgets_it() -> None:
    backbone = tiny()
    with talk(backbone, "full") as conversation:
        said = [conversation.ask(question) for question in (ADA, BOB)]
        conversation.begin_again()
        assert conversation.ask(BOB) == "the badge of bob 2"
    whole = f"{CONTEXT} {ADA}ANSWER: {said[0]}\n {BOB}"  # the same conversation as one prompt
    inputs = backbone.inputs([whole], [IMAGES])
    output = backbone.model.generate(**inputs, max_new_tokens=16, do_sample=False)
    assert backbone.answers(output[:, inputs["input_ids"].shape[1] :]) == said[1:]


def test_a_turn_is_the_tokens_of_the_whole_conversation() -> None:
    backbone, seen = tiny(), []
    with talk(backbone, "tp_pmerge") as conversation:
        said = conversation.ask(ADA, streamer=Watching(seen))
        conversation.ask(BOB, streamer=Watching(seen))
    asked = [tokens for tokens in seen if tokens.numel() > 1]
    whole = backbone.prompt_tokens(f"{CONTEXT} {ADA}ANSWER: {said}\n {BOB}", [16] * 4)
    assert asked[-1].flatten().tolist() == whole


def test_an_answer_that_is_interrupted_leaves_the_conversation_as_it_was() -> None:
    with talk(tiny(), "tp_pmerge") as conversation:
        conversation.ask(ADA)
        expected = conversation.ask(BOB)
        conversation.begin_again()
        conversation.ask(ADA)
        with pytest.raises(KeyboardInterrupt):
            conversation.ask("What is the badge of bob", streamer=Watching([], stop_after=3))
        assert conversation.ask(BOB) == expected


def test_positions_axes_of_qwen_go_on_from_the_context_after_another_prompt(tmp_path: Path) -> None:
    modern_checkpoints.qwen2_5vl(tmp_path)
    backbone = load_backbone(
        family="qwen2_5vl", name="qwen", label="Qwen", path=tmp_path, template="chatml", max_image_tokens=30,
        max_context_len=400, max_new_tokens=5, batch_size=1, device="cpu", dtype="float32",
    )  # fmt: skip
    with talk(backbone, "h2o") as conversation:
        expected = [conversation.ask(question) for question in (ADA, BOB)]
        other = Conversation.about(backbone, conversation.session, "Something else.")
        other.ask("What?")
        conversation.begin_again()
        assert [conversation.ask(question) for question in (ADA, BOB)] == expected


def test_what_looks_like_an_image_in_a_question_is_text() -> None:
    with talk(tiny(), "tp_pmerge") as conversation:
        for _ in range(2):
            assert conversation.ask(f"{IMAGE_HERE} <image> What?") is not None


def test_a_saved_context_goes_on_without_its_images(tmp_path: Path) -> None:
    backbone = tiny()
    with talk(backbone, "tp_pmerge") as conversation:
        expected = [conversation.ask(question) for question in (ADA, BOB)]
        conversation.save(tmp_path / "cache")  # of the context alone
    with look_once(backbone.model, "full") as session:
        loaded = Conversation.load(backbone, session, tmp_path / "cache")
        assert loaded.cache.strategy.name == "tp_pmerge"
        assert [loaded.ask(question) for question in (ADA, BOB)] == expected
        with pytest.raises(LookmError, match="which positions a cache holds is known of one prompt"):
            positions_in(loaded.cache)
        with torch.no_grad():
            session.save_cache(tmp_path / "plain", backbone.model(**backbone.inputs([ADA], [[]])).past_key_values)
        with pytest.raises(LookmError, match="holds a cache, but not of a conversation"):
            Conversation.load(backbone, session, tmp_path / "plain")


@pytest.mark.parametrize("strategy", ["tp_pmerge", "adakv", "replay"])
def test_the_positions_that_a_cache_notes_are_those_that_are_kept(strategy: str) -> None:
    backbone = tiny()
    with talk(backbone, strategy) as conversation:
        noted = positions_in(deepcopy(conversation.cache))
    inputs, _ = backbone.inputs_before_questions([CONTEXT], [IMAGES], [(0, f"{CONTEXT} {ADA}")])
    (kept,) = kept_positions(backbone.model, inputs, [noted.strategy])
    assert noted.is_image.equal(kept.is_image)
    for layer in range(len(kept.layers)):
        assert noted.mask(layer).equal(kept.mask(layer))


def test_nothing_is_noted_unless_it_is_asked_for() -> None:
    with look_once(tiny().model, "h2o") as session:
        conversation = Conversation.about(tiny(), session, CONTEXT, IMAGES)
        with pytest.raises(LookmError, match=r"encoded with session.notes_positions"):
            positions_in(conversation.cache)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    small = replace(tiny(), max_context_len=100)
    with talk(small, "h2o") as conversation:
        with pytest.raises(LookmError, match=r"the context has \d+ tokens; .* takes 100: give fewer images or words"):
            Conversation.about(small, conversation.session, CONTEXT + " More words." * 10, IMAGES)
        with pytest.raises(LookmError, match=r"the conversation has \d+ tokens; .*: ask in fewer words"):
            conversation.ask("What? " * 40)
        assert conversation.ask(ADA)
        for images, context, message in (
            (IMAGES, "two words", "0 times <ImageHere> and 4 images"),
            ([], " ", "the context is empty"),
        ):
            with pytest.raises(LookmError, match=message):
                Conversation.about(small, conversation.session, context, images)


class Watching:
    """A streamer that keeps what it is given, and may stop as Ctrl-C does."""

    def __init__(self, seen: list[Tensor], stop_after: int | None = None) -> None:
        self.seen, self.stop_after, self.calls = seen, stop_after, 0

    def put(self, value: Tensor) -> Any:
        self.seen.append(value)
        self.calls += 1
        if self.calls == self.stop_after:
            raise KeyboardInterrupt

    def end(self) -> None:
        pass
