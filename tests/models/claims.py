"""What is claimed of every backbone, to be called with each."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from lookm import load_strategy, look_once
from lookm.models.backbone import Backbone
from lookm.prompt import image_token_ids
from lookm.sweep import generate_sweep

PROMPTS = ["in<ImageHere> the<ImageHere> and", "<ImageHere>", "is the ring on?"]
SIZES = [[(40, 30), (9, 31)], [(64, 64)], []]


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def pictures() -> list[list[Image.Image]]:
    return [[picture(10 * row + n, size) for n, size in enumerate(sizes)] for row, sizes in enumerate(SIZES)]


def generated(backbone: Backbone, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    output = backbone.model.generate(  # type: ignore[operator]
        **inputs, do_sample=False, min_new_tokens=1, max_new_tokens=5, pad_token_id=backbone.tokenizer.pad_token_id
    )
    return output[:, inputs["input_ids"].shape[1] :]


def check_backbone(backbone: Backbone) -> None:
    """A full budget changes nothing; the mask marks the image tokens; a row in a batch is answered as alone."""
    inputs = backbone.inputs(PROMPTS, pictures())
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    image_id = backbone.model.config.image_token_id
    per_image = [backbone.encode_images([image]).n_tokens[0] for row in pictures() for image in row]
    expected = [per_image[0] + per_image[1], per_image[2], 0]
    assert (ids == image_id).sum(1).tolist() == expected
    assert max(per_image) <= backbone.most_image_tokens <= backbone.n_tokens_per_image
    other = set(image_token_ids(backbone.model.config)) - {image_id}
    assert not any((ids == token).any() for token in other)

    plain = generated(backbone, inputs)
    with look_once(backbone.model, "full") as session:
        assert torch.equal(generated(backbone, inputs), plain)
    assert session.report().image_tokens == tuple(expected)
    assert session.report().prompt_tokens == tuple(mask.sum(1).tolist())
    with look_once(backbone.model, "tp_pmerge", alpha1=0.5, alpha2=0.5) as session:
        assert torch.equal(generated(backbone, inputs), plain)
    with look_once(backbone.model, "h2o", alpha1=0.1, alpha2=0.1) as session:
        generated(backbone, inputs)
    assert all(share < 0.3 for share in session.report().realised_budget)

    for row, (prompt, images) in enumerate(zip(PROMPTS, pictures(), strict=True)):
        alone = answer(backbone, generated(backbone, backbone.inputs([prompt], [images]))[0])
        assert answer(backbone, plain[row]) == alone


def check_sweep(backbone: Backbone, **settings: Any) -> None:
    """Many strategies from one prefill answer as each of them does alone."""
    inputs = backbone.inputs(PROMPTS, pictures())
    strategies = [load_strategy(name, alpha1=0.15, alpha2=0.1) for name in ("full", "h2o", "tp_pmerge", "snapkv")]
    pad = backbone.tokenizer.pad_token_id
    rows = generate_sweep(backbone.model, inputs, strategies, max_new_tokens=5, pad_token_id=pad, **settings)
    for strategy, row in zip(strategies, rows, strict=True):
        with look_once(backbone.model, strategy):
            alone = generated(backbone, inputs)
        assert list(row.tokens) == [answer(backbone, tokens) for tokens in alone]


def answer(backbone: Backbone, tokens: torch.Tensor) -> tuple[int, ...]:
    """Tokens up to and with the first that ends an answer."""
    ends = backbone.model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    row = tokens.tolist()
    n = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:n])
