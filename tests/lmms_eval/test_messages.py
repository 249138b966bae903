"""Chat messages become one text with a placeholder for each image, in their order, whatever a model is."""

from dataclasses import replace

import pytest
from PIL import Image

from benchmarks.lmms_eval.messages import Question, fitted, question_of
from lookm.errors import LookmError
from lookm.models.backbone import IMAGE_HERE, Backbone
from lookm.models.templates import TEMPLATES, later_turn
from lookm.registry import load_model

RED, BLUE, GREEN = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green"))


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_model("tiny", device="cpu")


def text(said: str) -> dict[str, object]:
    return {"type": "text", "text": said}


def image(picture: Image.Image) -> dict[str, object]:
    return {"type": "image", "url": picture}


def ask(backbone: Backbone, *messages: tuple[str, object]) -> Question:
    listed = [{"role": role, "content": content} for role, content in messages]
    return question_of(listed, backbone, lambda video: list(video))


def test_images_and_texts_keep_their_order(tiny: Backbone) -> None:
    question = ask(tiny, ("user", [text("Two:"), image(RED), text("and"), image(BLUE), text("\nWhich?")]))
    assert question.text == f"Two:{IMAGE_HERE}\nand{IMAGE_HERE}\nWhich?"
    assert question.images == (RED, BLUE)


def test_images_that_come_first_go_where_the_text_says(tiny: Backbone) -> None:
    question = ask(tiny, ("user", [image(RED), image(BLUE), text("Is <image> or <image> blue?")]))
    assert question.text == f"Is {IMAGE_HERE} or {IMAGE_HERE} blue?"
    assert question.images == (RED, BLUE)
    one = ask(tiny, ("user", [image(RED), image(BLUE), text("Is <image> blue?")]))
    assert one.text == f"{IMAGE_HERE * 2}\nIs <image> blue?"


def test_frames_of_a_video_are_images_where_it_stands(tiny: Backbone) -> None:
    question = ask(tiny, ("user", [image(RED), {"type": "video", "url": [BLUE, GREEN]}, text("What moved?")]))
    assert question.text == f"{IMAGE_HERE * 3}\nWhat moved?"
    assert question.images == (RED, BLUE, GREEN)


def test_an_image_may_be_a_path_and_a_message_a_plain_text(tiny: Backbone, tmp_path) -> None:  # type: ignore[no-untyped-def]
    RED.save(tmp_path / "red.png")
    question = ask(tiny, ("system", "Be brief."), ("user", [{"type": "image", "url": str(tmp_path / "red.png")}]))
    assert question.text == f"Be brief.\n{IMAGE_HERE}"
    assert question.images[0].getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_earlier_turns_stand_as_the_template_writes_them(tiny: Backbone, template: str) -> None:
    backbone = replace(tiny, template=TEMPLATES[template])
    question = ask(backbone, ("user", "one?"), ("assistant", "1"), ("user", "two?"))
    whole = TEMPLATES[template].replace("{question}", question.text)
    first, later = TEMPLATES[template], later_turn(TEMPLATES[template])
    assert whole == first.replace("{question}", "one?") + "1" + later.replace("{question}", "two?")


def test_what_looks_like_a_placeholder_is_none(tiny: Backbone) -> None:
    question = ask(tiny, ("user", f"{IMAGE_HERE} is a word here"))
    assert IMAGE_HERE not in question.text
    assert tiny.inputs([question.text], [question.images])["input_ids"].shape[0] == 1


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([("user", [{"type": "audio", "url": "a.wav"}])], "content of type 'audio'"),
        ([("tool", "x")], "a message of role 'tool'"),
        ([("user", "x"), ("assistant", "y")], "the messages ask nothing"),
        ([("user", [{"type": "image", "url": 7}])], "an image is given as int"),
    ],
)
def test_wrong_messages_are_refused_in_one_line(
    tiny: Backbone, messages: list[tuple[str, object]], message: str
) -> None:
    with pytest.raises(LookmError, match=message) as caught:
        ask(tiny, *messages)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_is_too_long_loses_its_beginning(tiny: Backbone) -> None:
    short = replace(tiny, max_context_len=3 * tiny.n_tokens_per_image + 12)
    question = Question("".join(f"{IMAGE_HERE} word{n}" for n in range(6)) + " last?", (RED, BLUE, GREEN) * 2)
    cut = fitted(question, short)
    assert cut.text.endswith("word5 last?")
    assert 0 < len(cut.images) < 6
    assert cut.text.count(IMAGE_HERE) == len(cut.images) == 6 - cut.dropped_images
    assert cut.images == question.images[-len(cut.images) :]
    tokens = len(short.encode(cut.text.replace(IMAGE_HERE, ""))) + len(cut.images) * short.n_tokens_per_image
    assert tokens <= short.max_context_len
    assert fitted(question, tiny) == question
