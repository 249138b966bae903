"""Prompts and images become inputs, tokens become answers: checked with an untrained tiny LLaVA."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.mini.sample import CUE
from lookm.errors import LookmError
from lookm.models.backbone import IMAGE_HERE, Backbone, separated
from lookm.models.tiny import TEMPLATE
from scripts.tiny_training.families import FAMILIES, IMAGE_TOKEN, build_model, build_tokenizer

LLAVA = FAMILIES["tiny_llava"]
TOKENIZER = build_tokenizer(1_000_000)
PROCESSOR = LLAVA.processor(TOKENIZER).image_processor


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    model = build_model(LLAVA, TOKENIZER, 1_000_000, micro=True).eval()
    return Backbone("micro", model, TOKENIZER, PROCESSOR, TEMPLATE, 16, 2000, 8, 4, "micro LLaVA")


def picture(seed: int, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def plain_ids(prompt: str) -> list[int]:
    """Written out slowly: one piece or one image after the other, in the order in which they stand."""
    prompt = prompt.replace(f"{IMAGE_HERE}{IMAGE_HERE}", f"{IMAGE_HERE}\n{IMAGE_HERE}\n")
    ids = [TOKENIZER.vocab["<s>"]]
    rest = prompt + "ANSWER:"
    while rest:
        if rest.startswith(IMAGE_HERE):
            ids += [TOKENIZER.vocab[IMAGE_TOKEN]] * 16
            rest = rest[len(IMAGE_HERE) :]
        else:
            piece = rest.split(IMAGE_HERE)[0]
            ids += TOKENIZER.encode(piece, add_special_tokens=False)
            rest = rest[len(piece) :]
    return ids


PIECES = st.sampled_from([IMAGE_HERE, " ada", "\n", " What is the badge of ada?", CUE, " zq é 東", "\nB. red goes up"])


@given(st.lists(PIECES, max_size=9).map("".join))
@settings(max_examples=60)
def test_prompt_tokens_equal_a_plain_construction(backbone: Backbone, prompt: str) -> None:
    assert backbone.prompt_tokens(prompt) == plain_ids(prompt)


@given(st.text(max_size=60))
def test_any_text_survives_encoding_and_decoding(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    specials = set(TOKENIZER.all_special_tokens)
    if not any(special in text for special in specials):
        assert TOKENIZER.decode(ids) == text


def test_each_word_and_each_fixed_phrase_is_one_token() -> None:
    for text in (" ada", " circle", " 7", " there", CUE, "ANSWER:", "\nB.", "\nChoice list: \nA."):
        assert len(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == 1


def test_neighbouring_images_are_separated_as_in_milebench() -> None:
    assert separated(IMAGE_HERE * 3) == f"{IMAGE_HERE}\n{IMAGE_HERE}\n{IMAGE_HERE}"
    assert separated(f"{IMAGE_HERE} a{IMAGE_HERE}") == f"{IMAGE_HERE} a{IMAGE_HERE}"


def test_a_batch_is_padded_on_the_left_and_masked_there(backbone: Backbone) -> None:
    prompts = [f"a{IMAGE_HERE} b", f"{IMAGE_HERE}{IMAGE_HERE}", "no image"]
    images = [[picture(0)], [picture(1), picture(2)], []]
    batch = backbone.inputs(prompts, images)
    for row, prompt in enumerate(prompts):
        ids = plain_ids(prompt)
        assert batch["input_ids"][row, -len(ids) :].tolist() == ids
        assert batch["attention_mask"][row].tolist() == [0] * (batch["input_ids"].shape[1] - len(ids)) + [1] * len(ids)
    assert (batch["input_ids"][batch["attention_mask"] == 0] == TOKENIZER.pad_token_id).all()
    assert batch["pixel_values"].shape == (3, 3, 32, 32)


def test_pixels_are_what_training_sees(backbone: Backbone) -> None:
    image = picture(3)
    expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.allclose(backbone.inputs([IMAGE_HERE], [[image]])["pixel_values"][0], expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_images_of_any_size_and_mode_are_accepted(backbone: Backbone, mode: str) -> None:
    batch = backbone.inputs([IMAGE_HERE * 2], [[picture(0, (50, 20), mode), picture(1)]])
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    assert torch.isfinite(batch["pixel_values"]).all()


def test_a_prompt_without_images_has_no_pixels(backbone: Backbone) -> None:
    assert set(backbone.inputs(["a b"], [[]])) == {"input_ids", "attention_mask"}


def test_pixels_have_the_models_dtype(backbone: Backbone) -> None:
    half_model = build_model(LLAVA, TOKENIZER, 1_000_000, micro=True)
    torch.nn.Module.to(half_model, dtype=torch.bfloat16)
    half = dataclasses.replace(backbone, model=half_model)
    assert half.inputs([IMAGE_HERE], [[picture(0)]])["pixel_values"].dtype == torch.bfloat16


@pytest.mark.parametrize("images", [0, 1, 3])
def test_another_number_of_images_than_placeholders_is_refused(backbone: Backbone, images: int) -> None:
    with pytest.raises(LookmError, match=f"prompt 1 has 2 times <ImageHere> and {images} images"):
        backbone.inputs(["a", IMAGE_HERE * 2], [[], [picture(0)] * images])


def test_answers_drop_special_tokens_and_outer_spaces(backbone: Backbone) -> None:
    ids = backbone.encode(" the badge of ada 7")
    row = [*ids, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id]
    assert backbone.answers(torch.tensor([row, row])) == ["the badge of ada 7"] * 2


def test_a_row_in_a_batch_gets_the_answer_it_gets_alone(backbone: Backbone) -> None:
    prompts, images = [f"a b c{IMAGE_HERE}", f"{IMAGE_HERE} d"], [[picture(0)], [picture(1)]]

    generate = cast("Callable[..., torch.Tensor]", backbone.model.generate)

    def generated(which: slice) -> list[str]:
        batch = backbone.inputs(prompts[which], images[which])
        output = generate(**batch, max_new_tokens=4, do_sample=False)
        return backbone.answers(output[:, batch["input_ids"].shape[1] :])

    assert generated(slice(0, 2)) == generated(slice(0, 1)) + generated(slice(1, 2))


@pytest.mark.parametrize("field", ["batch_size", "max_context_len", "max_new_tokens"])
@pytest.mark.parametrize("value", [0, -1, "many", 1.5, True])
def test_numbers_below_one_are_refused(backbone: Backbone, field: str, value: object) -> None:
    with pytest.raises(LookmError, match=f"model.{field} must be a whole number of at least 1, not {value!r}"):
        dataclasses.replace(backbone, **cast("Any", {field: value}))
