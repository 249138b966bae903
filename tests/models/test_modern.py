"""Qwen2.5-VL, LLaVA-OneVision and InternVL3: checkpoints in their repositories' layouts, plain computations beside."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import LlavaOnevisionImageProcessorPil

from lookm.errors import LookmError
from lookm.models.backbone import Backbone
from lookm.models.family import load_backbone
from tests.lookm.rounding import assert_close, pass_error
from tests.models import modern_checkpoints as made
from tests.models import plain
from tests.models.claims import check_backbone, check_sweep, picture

LOAD: dict[str, Any] = {
    "name": "modern", "template": "chatml", "label": "modern", "batch_size": 2, "max_context_len": 500,
    "max_new_tokens": 6,
}  # fmt: skip
Inputs = dict[str, torch.Tensor]


def qwen_logits(weights: plain.Weights, inputs: Inputs) -> torch.Tensor:
    """Images of any grid through windowed attention; text and images at three-dimensional positions."""
    patches, places, start = [], [], 0
    for _, rows, columns in inputs["image_grid_thw"].tolist():
        x = inputs["pixel_values"][start : start + rows * columns].double()
        start += rows * columns
        # The processor lays patches out token by token, and each token's 2 × 2 patches row by row.
        tokens = [(2 * r, 2 * c) for r in range(rows // 2) for c in range(columns // 2)]
        order = [(r + i, c + j) for r, c in tokens for i in (0, 1) for j in (0, 1)]
        patches.append(qwen_tower(weights, x, torch.tensor(order)))
        places.append((rows // 2, columns // 2))
    ids = inputs["input_ids"][0]
    x = weights["model.embed_tokens.weight"][ids]
    x[ids == made.IMAGE] = torch.cat(patches)
    positions, at, image, place = [], 0, iter(places), 0
    while place < len(ids):
        if ids[place] != made.IMAGE:
            positions.append((at, at, at))
            at, place = at + 1, place + 1
            continue
        rows, columns = next(image)
        positions += [(at, at + r, at + c) for r in range(rows) for c in range(columns)]
        at, place = at + max(rows, columns), place + rows * columns
    by_axis = [plain.rope_angles(axis, 16, 1e6) for axis in torch.tensor(positions).T]
    angles = torch.cat([by_axis[0][:, :2], by_axis[1][:, 2:5], by_axis[2][:, 5:]], dim=1)
    return plain.llama_logits(weights, "model.", "lm_head", x, heads=4, kv_heads=2, eps=1e-6, angles=angles)


def qwen_tower(weights: plain.Weights, x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """One image's patches at their (row, column) → its tokens."""
    x = x @ weights["visual.patch_embed.proj.weight"].flatten(1).T
    angles = torch.cat([plain.rope_angles(order[:, axis], 8, 1e4) for axis in (0, 1)], dim=1)
    window = order // 4  # 16 pixels are 4 patches
    together = (window[:, None] == window[None]).all(-1)
    for layer in range(3):
        name = f"visual.blocks.{layer}"
        y = plain.rms_norm(weights[f"{name}.norm1.weight"], x, 1e-6)
        q, k, v = (plain.heads_of(part, 2) for part in plain.linear(weights, f"{name}.attn.qkv", y).chunk(3, dim=-1))
        q, k = plain.rotated(q, angles), plain.rotated(k, angles)
        x = x + plain.linear(weights, f"{name}.attn.proj", plain.attention(q, k, v, None if layer == 1 else together))
        y = plain.rms_norm(weights[f"{name}.norm2.weight"], x, 1e-6)
        gate = F.silu(plain.linear(weights, f"{name}.mlp.gate_proj", y))
        x = x + plain.linear(weights, f"{name}.mlp.down_proj", gate * plain.linear(weights, f"{name}.mlp.up_proj", y))
    x = plain.rms_norm(weights["visual.merger.ln_q.weight"], x, 1e-6).reshape(len(x) // 4, -1)
    return plain.linear(weights, "visual.merger.mlp.2", plain.gelu(plain.linear(weights, "visual.merger.mlp.0", x)))


def onevision_logits(weights: plain.Weights, inputs: Inputs) -> torch.Tensor:
    """One view of each image through SigLIP, its tokens and a line break."""
    tower, images = "vision_tower.vision_model.", []
    for pixels in inputs["pixel_values"].double():
        x = plain.patches(weights, f"{tower}embeddings.patch_embedding", pixels)
        x = x + weights[f"{tower}embeddings.position_embedding.weight"]
        for layer in range(2):
            x = plain.vit_layer(weights, f"{tower}encoder.layers.{layer}", x, 2, 1e-6, plain.gelu_tanh)
        x = plain.gelu(plain.linear(weights, "multi_modal_projector.linear_1", x))
        images += [plain.linear(weights, "multi_modal_projector.linear_2", x), weights["image_newline"][None]]
    return text_logits(weights, inputs, torch.cat(images))


def internvl3_logits(weights: plain.Weights, inputs: Inputs) -> torch.Tensor:
    """InternViT with layer norms; each 2 × 2 patches become one token."""
    images = []
    for pixels in inputs["pixel_values"].double():
        x = plain.patches(weights, "vision_tower.embeddings.patch_embeddings.projection", pixels)
        x = torch.cat([weights["vision_tower.embeddings.cls_token"][0], x])
        x = x + weights["vision_tower.embeddings.position_embeddings"][0]
        for layer in range(2):
            name = f"vision_tower.encoder.layer.{layer}"
            y = plain.layer_norm(weights, f"{name}.layernorm_before", x, 1e-6)
            q, k, v = (plain.heads_of(plain.linear(weights, f"{name}.attention.{part}_proj", y), 2) for part in "qkv")
            mixed = plain.linear(weights, f"{name}.attention.projection_layer", plain.attention(q, k, v))
            x = x + weights[f"{name}.lambda_1"] * mixed
            y = plain.layer_norm(weights, f"{name}.layernorm_after", x, 1e-6)
            y = plain.gelu(plain.linear(weights, f"{name}.mlp.fc1", y))
            x = x + weights[f"{name}.lambda_2"] * plain.linear(weights, f"{name}.mlp.fc2", y)
        grid = x[1:].reshape(4, 4, -1)
        corners = [(2 * r, 2 * c) for r in range(2) for c in range(2)]
        x = torch.stack([torch.cat([grid[r + i, c + j] for i in (0, 1) for j in (0, 1)]) for r, c in corners])
        x = plain.layer_norm(weights, "multi_modal_projector.layer_norm", x, 1e-5)
        x = plain.gelu(plain.linear(weights, "multi_modal_projector.linear_1", x))
        images.append(plain.linear(weights, "multi_modal_projector.linear_2", x))
    return text_logits(weights, inputs, torch.cat(images))


def text_logits(weights: plain.Weights, inputs: Inputs, images: torch.Tensor) -> torch.Tensor:
    """Qwen2's logits with image tokens in their places."""
    ids = inputs["input_ids"][0]
    x = weights["language_model.model.embed_tokens.weight"][ids]
    x[ids == made.IMAGE] = images
    names = ("language_model.model.", "language_model.lm_head")
    return plain.llama_logits(weights, *names, x, heads=4, kv_heads=2, eps=1e-6, theta=1e6)


@dataclass(frozen=True)
class Case:
    """One backbone with what it is compared with."""

    make: Callable[[Path], object]
    logits: Callable[[plain.Weights, Inputs], torch.Tensor]
    fields: dict[str, Any]


CASES = {
    "qwen2_5vl": Case(made.qwen2_5vl, qwen_logits, {"max_image_tokens": 30}),
    "llava_onevision": Case(made.llava_onevision, onevision_logits, {}),
    "internvl3": Case(made.internvl3, internvl3_logits, {}),
}


@dataclass(frozen=True)
class Loaded:
    """A case, its checkpoint and its backbone."""

    case: Case
    folder: Path
    backbone: Backbone


@pytest.fixture(scope="module", params=CASES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    case, folder = CASES[request.param], tmp_path_factory.mktemp(request.param)
    case.make(folder)
    return Loaded(case, folder, load_backbone(family=request.param, path=folder, **LOAD, **case.fields))


@pytest.mark.parametrize("sizes", [[(40, 30)], [(28, 9), (40, 40), (64, 24)]])
def test_logits_equal_a_plain_computation(loaded: Loaded, sizes: list[tuple[int, int]]) -> None:
    prompt = "".join(f"the<ImageHere> and {n}" for n in range(len(sizes)))
    inputs = loaded.backbone.inputs([prompt], [[picture(n, size) for n, size in enumerate(sizes)]])
    weights = plain.double({k: v for file in loaded.folder.glob("*.safetensors") for k, v in load_file(file).items()})
    with torch.inference_mode():
        logits = loaded.backbone.model(**inputs).logits[0]
    expected = loaded.case.logits(weights, inputs)
    assert_close(logits, expected, absolute=pass_error(loaded.backbone.model, len(expected)) * expected.abs().max())


def test_it_does_what_every_backbone_does(loaded: Loaded) -> None:
    check_backbone(loaded.backbone)


@pytest.mark.parametrize("settings", [{}, {"memory_limit": 1}, {"cuda_graph": True}], ids=["one", "groups", "static"])
def test_a_sweep_answers_as_each_strategy_alone(loaded: Loaded, settings: dict[str, Any]) -> None:
    check_sweep(loaded.backbone, **settings)


def test_no_bos_and_the_marks_around_images_are_text(loaded: Loaded) -> None:
    before, after = loaded.backbone.around_image
    expected = f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nx{before}"
    ids = loaded.backbone.prompt_tokens("x<ImageHere>y")
    first = ids.index(made.IMAGE)
    assert loaded.backbone.tokenizer.decode(ids[:first]) == expected
    rest = loaded.backbone.tokenizer.decode(ids[first + loaded.backbone.most_image_tokens :])
    assert str(rest).startswith(f"{after}y<|im_end|>")
    assert len(ids) - len(loaded.backbone.prompt_tokens("xy")) == loaded.backbone.n_tokens_per_image


def test_a_question_that_spells_an_image_token_is_text(loaded: Loaded) -> None:
    token = loaded.backbone.tokenizer.convert_ids_to_tokens(made.IMAGE)
    ids = loaded.backbone.prompt_tokens(f"What does {token} mean?")
    assert made.IMAGE not in ids
    assert f"{token[0]} {token[1:]} mean?" in loaded.backbone.tokenizer.decode(ids)


def test_qwens_images_have_no_more_tokens_than_allowed(tmp_path: Path) -> None:
    made.qwen2_5vl(tmp_path)
    backbone = load_backbone(family="qwen2_5vl", path=tmp_path, max_image_tokens=12, **LOAD)
    sizes = [(8, 8), (16, 16), (500, 400), (30, 90), (90, 20)]
    counts = backbone.encode_images([picture(0, size) for size in sizes]).n_tokens
    assert (min(counts), max(counts) <= 12) == (4, True)
    assert backbone.n_tokens_per_image == 14
    with pytest.raises(LookmError, match="an image of 300 × 20 pixels becomes 13 tokens"):
        backbone.encode_images([picture(0, (300, 20))])
    with pytest.raises(LookmError, match="max_image_tokens is 3; an image has at least 4"):
        load_backbone(family="qwen2_5vl", path=tmp_path, max_image_tokens=3, **LOAD)


def test_onevisions_pixels_are_those_of_its_own_processor_for_several_images(tmp_path: Path) -> None:
    made.llava_onevision(tmp_path)
    backbone = load_backbone(family="llava_onevision", path=tmp_path, **LOAD)
    images = [picture(0, (40, 31)), picture(1, (20, 50))]
    processor = LlavaOnevisionImageProcessorPil(
        size={"height": 30, "width": 30}, image_mean=[0.5] * 3, image_std=[0.5] * 3, image_grid_pinpoints=[[30, 30]]
    )
    theirs = processor([images], return_tensors="np")  # type: ignore[arg-type]
    ours = backbone.encode_images(images).tensors
    assert np.allclose(ours["pixel_values"].numpy(), np.asarray(theirs["pixel_values"])[:, 0], atol=1e-5)
    assert ours["image_sizes"].tolist() == np.asarray(theirs["image_sizes"]).tolist()
