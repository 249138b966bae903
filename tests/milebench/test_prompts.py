"""Prompts are MileBench's, also where its data are at odds with themselves."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.milebench import PLACEHOLDER, build_prompt
from benchmarks.milebench.prompts import Prompt
from lookm.errors import LookmError
from tests.milebench.golden import byte_tokenizer, load_prompts

GOLDEN = load_prompts()
TOKENIZER = byte_tokenizer()


def sample(context: str, n_images: int, **instance: Any) -> dict[str, Any]:
    paths = [f"{number}.jpg" for number in range(1, n_images + 1)]
    return {
        "sample_id": 0,
        "task_instruction_id": 0,
        "task_instance": {"context": context, "images_path": paths, **instance},
    }


def prompt_of(content: dict[str, Any], *, room: int = 1000, image_tokens: int = 10, **options: Any) -> Prompt:
    """The prompt after the instruction "Do: ", which the byte tokenizer makes four tokens."""
    settings = {"dataset": "TQA", "image_dir": "images", **options}
    return build_prompt(
        content, "Do: ", tokenizer=TOKENIZER, max_context_len=room + 4, n_tokens_per_image=image_tokens, **settings
    )


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["annotation"]["sample_id"]))
def test_golden_prompts(case: dict[str, Any]) -> None:
    prompt = build_prompt(
        case["annotation"],
        GOLDEN["task_instruction"],
        dataset=case["dataset_name"],
        tokenizer=TOKENIZER,
        max_context_len=case["max_context_len"],
        n_tokens_per_image=case["n_tokens_per_image"],
        image_dir=GOLDEN["img_dir"],
        combine_image=case["combine_image"],
    )
    assert prompt.context == case["expected"]["context"]
    assert prompt.images == case["expected"]["images"]


def test_at_4096_tokens_the_last_seven_images_survive() -> None:
    content = sample("".join(f"{{image#{number}}}" for number in range(1, 31)) + "?", 30)
    prompt = prompt_of(content, room=4092, image_tokens=576)
    assert [path.split("/")[1] for path in prompt.images] == [f"{number}.jpg" for number in range(24, 31)]
    assert prompt.dropped_images == 23
    assert prompt.dropped_tokens == 0


def test_dropped_text_is_counted() -> None:
    prompt = prompt_of(sample("0123456789{image#1}abc", 1), room=17)
    assert prompt.context == f"Do: \n{PLACEHOLDER}abc"
    assert (prompt.dropped_images, prompt.dropped_tokens) == (0, 10)


def test_a_last_fragment_that_does_not_fit_keeps_its_end_and_no_image() -> None:
    prompt = prompt_of(sample("x{image#1}0123456789", 1), room=4)
    assert prompt.context == "Do: \n6789"
    assert (prompt.images, prompt.dropped_images, prompt.dropped_tokens) == ([], 1, 7)
    assert prompt.notes == ("no_image_left",)


def test_an_instruction_that_fills_the_context_leaves_no_text() -> None:
    prompt = prompt_of(sample("{image#1}0123", 1), room=-2)
    assert prompt.context == "Do: \n"
    assert prompt.notes == ("no_image_left", "no_room")
    assert prompt.dropped_tokens == 4


def test_more_images_than_placeholders_shift_to_the_front() -> None:
    prompt = prompt_of(sample("a{image#1}b", 4))
    assert prompt.context == f"Do: \n{PLACEHOLDER}a{PLACEHOLDER}b"
    assert prompt.images == ["images/3.jpg", "images/4.jpg"]
    assert prompt.notes == ("more_images_than_placeholders:3",)


def test_more_placeholders_than_images_are_noted_and_can_be_taken_out() -> None:
    prompt = prompt_of(sample(f"a{PLACEHOLDER}b{{image#1}}c{{table#1}}d", 1))
    assert prompt.context == f"Do: \na{PLACEHOLDER}b{PLACEHOLDER}c{PLACEHOLDER}d"
    assert prompt.images == ["images/1.jpg"]
    assert prompt.notes == ("more_placeholders_than_images:2", "surplus_placeholders:2")
    assert prompt.text == f"Do: \nabc{PLACEHOLDER}d"


def test_a_combined_image_keeps_the_first_placeholder() -> None:
    content = sample(f"a{PLACEHOLDER}b{{image#1}}", 1, combined_2_images=["0.jpg"])
    prompt = prompt_of(content, combine_image=2)
    assert prompt.context == f"{PLACEHOLDER}\nDo: \na{PLACEHOLDER}b<Image 1> "
    assert prompt.images == ["combined_2_images/0.jpg"]
    assert prompt.text == f"{PLACEHOLDER}\nDo: \nab<Image 1> "
    assert prompt.dropped_images == 0


@pytest.mark.parametrize("combined", [{}, {"combined_2_images": ["0.jpg", "1.jpg"]}])
def test_anything_but_one_combined_image_is_an_error(combined: dict[str, Any]) -> None:
    with pytest.raises(LookmError, match=r"sample 0: combined_2_images holds \d images.*exactly one"):
        prompt_of(sample("a", 1, **combined), combine_image=2)


def test_an_instruction_that_does_not_exist_is_an_error() -> None:
    content = {**sample("a", 0), "task_instruction_id": 2}
    with pytest.raises(LookmError, match="task_instruction_id is 2, but the annotation has the instructions 0 to 1"):
        build_prompt(
            content,
            GOLDEN["task_instruction"],
            dataset="TQA",
            tokenizer=TOKENIZER,
            max_context_len=10,
            n_tokens_per_image=1,
            image_dir="images",
        )


def test_numbers_beyond_the_images_and_other_braces_stay_text() -> None:
    context = "{image#0}{image#2}{image#01}{table#99999999999999999999}{image#1}{picture#1}"
    prompt = prompt_of(sample(context, 1))
    assert prompt.context == "Do: \n" + context.replace("{image#1}", PLACEHOLDER)


def oracle(fragments: list[str], images: list[str], room: int, image_tokens: int) -> tuple[str, list[str]]:
    """MILEBENCH.md's steps 4 and 5 on ASCII fragments, one character a token: the prompt's text and images."""
    pieces: list[str] = []  # from the last to the first, images as placeholders
    kept: list[str] = []
    used = 0
    for number in range(len(fragments) - 1, -1, -1):
        fragment = fragments[number]
        if used + len(fragment) > room:
            if not pieces:
                pieces.append(
                    "".join(fragment[place] for place in range(len(fragment)) if place >= len(fragment) - room)
                )
            break
        pieces.append(fragment)
        used += len(fragment)
        if used + image_tokens > room:
            break
        if len(kept) < len(images):
            kept.insert(0, images[len(images) - len(kept) - 1])
            used += image_tokens
            if number == 0 or used + len(fragments[number - 1]) > room:
                return PLACEHOLDER + PLACEHOLDER.join(reversed(pieces)), kept
    return PLACEHOLDER.join(reversed(pieces)), kept


@given(
    fragments=st.lists(st.text("ab ", max_size=8), min_size=1, max_size=8),
    n_images=st.integers(0, 9),
    room=st.integers(1, 60),
    image_tokens=st.integers(1, 12),
)
def test_the_walk_is_the_plain_one(fragments: list[str], n_images: int, room: int, image_tokens: int) -> None:
    content = sample(PLACEHOLDER.join(fragments), n_images)
    prompt = prompt_of(content, room=room, image_tokens=image_tokens)
    images = [f"images/{name}" for name in content["task_instance"]["images_path"]]
    text, kept = oracle(fragments, images, room, image_tokens)
    assert (prompt.context, prompt.images) == (f"Do: \n{text}", kept)
    assert prompt.dropped_images == n_images - len(kept)
    assert prompt.dropped_tokens == sum(map(len, fragments)) - len(text.replace(PLACEHOLDER, ""))
    used = len(text.replace(PLACEHOLDER, "")) + image_tokens * len(kept)
    assert used <= room


@given(
    context=st.lists(st.one_of(st.text(), st.sampled_from(["{image#1}", "{table#2}", PLACEHOLDER]))).map("".join),
    n_images=st.integers(0, 3),
    choices=st.one_of(st.none(), st.lists(st.text(), max_size=40)),
    room=st.integers(-5, 200),
    combine_image=st.sampled_from([None, 1]),
)
def test_any_text_gives_a_prompt_with_a_placeholder_per_image(
    context: str, n_images: int, choices: list[str] | None, room: int, combine_image: int | None
) -> None:
    content = sample(context, n_images, choice_list=choices, combined_1_images=["0.jpg"])
    prompt = prompt_of(content, room=room, combine_image=combine_image)
    assert prompt.text.count(PLACEHOLDER) == len(prompt.images)
    assert prompt.context.replace(PLACEHOLDER, "") == prompt.text.replace(PLACEHOLDER, "")
    surplus = prompt.context.count(PLACEHOLDER) - len(prompt.images)
    assert (f"surplus_placeholders:{surplus}" in prompt.notes) == (surplus > 0)
