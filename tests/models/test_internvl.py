"""InternVL-Chat: the original vision tower's outputs, and a checkpoint in the repository's layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file

from lookm.models.backbone import Backbone
from lookm.models.family import IMAGENET_MEAN, load_backbone, mean_colour
from lookm.models.internvl import InternViT, InternViTConfig, InternVLChatFamily
from tests.lookm.rounding import assert_close, pass_error
from tests.models import checkpoints, plain
from tests.models.claims import check_backbone, check_sweep, picture

GOLDEN = Path(__file__).parents[1] / "data" / "backbones" / "internvit.safetensors"
TOWER = "model.vision_tower.vision_tower."
LOAD: dict[str, Any] = {
    "family": "internvl", "name": "internvl7b", "template": "vicuna_v1", "label": "InternVL-Chat", "batch_size": 2,
    "max_context_len": 500, "max_new_tokens": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("internvl")
    checkpoints.internvl(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Backbone:
    return load_backbone(path=folder, **LOAD)


def plain_features(weights: plain.Weights, pixels: torch.Tensor, heads: int, layers: int) -> torch.Tensor:
    """InternViT's hidden state (patches, C) after so many layers, without CLS, of pixels (3, S, S)."""
    x = plain.patches(weights, f"{TOWER}embeddings.patch_embedding", pixels)
    positions = weights[f"{TOWER}embeddings.position_embedding"][0]
    old, new = round((len(positions) - 1) ** 0.5), round(len(x) ** 0.5)
    square = positions[1:].T.reshape(1, -1, old, old)
    resized = F.interpolate(square, (new, new), mode="bicubic", align_corners=False)[0].flatten(1).T
    x = torch.cat([weights[f"{TOWER}embeddings.class_embedding"][0] + positions[:1], x + resized])
    for layer in range(layers):
        name = f"{TOWER}encoder.layers.{layer}"
        norm = {part: weights[f"{name}.{part}.weight"] for part in ("norm1", "norm2", "attn.q_norm", "attn.k_norm")}
        q, k, v = plain.linear(weights, f"{name}.attn.qkv", plain.rms_norm(norm["norm1"], x, 1e-6)).chunk(3, dim=-1)
        q, k = plain.rms_norm(norm["attn.q_norm"], q, 1e-6), plain.rms_norm(norm["attn.k_norm"], k, 1e-6)
        mixed = plain.attention(*(plain.heads_of(states, heads) for states in (q, k, v)))
        x = x + weights[f"{name}.ls1"] * plain.linear(weights, f"{name}.attn.proj", mixed)
        y = plain.gelu(plain.linear(weights, f"{name}.mlp.fc1", plain.rms_norm(norm["norm2"], x, 1e-6)))
        x = x + weights[f"{name}.ls2"] * plain.linear(weights, f"{name}.mlp.fc2", y)
    return x[1:]


def test_the_tower_gives_the_originals_features() -> None:
    golden = load_file(GOLDEN)
    with safe_open(GOLDEN, "pt") as file:
        config = json.loads(file.metadata()["config"])
    names = [field for field in config if hasattr(InternViTConfig, field)]
    tower = InternViT(InternViTConfig(**{name: config[name] for name in names} | {"num_hidden_layers": 3}))
    weights = {k.removeprefix(TOWER).removeprefix("encoder."): v for k, v in golden.items() if k.startswith(TOWER)}
    unused = tower.load_state_dict(weights, strict=False)
    assert not unused.missing_keys
    assert all(name.startswith(("layers.3.", "layers.4.", "layers.5.")) for name in unused[1])
    pixels = golden["pixel_values"].float()
    with torch.inference_mode():
        assert torch.allclose(tower(pixels), golden["features"], atol=1e-4)
    slow = plain_features(plain.double(golden), pixels[0].double(), heads=4, layers=3)
    assert torch.allclose(slow, golden["features"][0].double(), atol=1e-4)


def test_the_padding_is_the_imagenet_mean_colour() -> None:
    assert mean_colour(IMAGENET_MEAN) == (123, 116, 103)


def test_logits_equal_a_plain_computation(backbone: Backbone, folder: Path) -> None:
    inputs = backbone.inputs(["the<ImageHere> and<ImageHere>"], [[picture(0, (28, 9)), picture(1, (40, 40))]])
    weights = plain.double({k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()})
    ids = inputs["input_ids"][0]
    x = torch.zeros(len(ids), 32, dtype=torch.float64)
    x[ids != 600] = weights["model.embed_tokens.weight"][ids[ids != 600]]
    features = torch.cat([plain_features(weights, p.double(), heads=2, layers=3) for p in inputs["pixel_values"]])
    features = plain.gelu(plain.linear(weights, "model.mm_projector.0", features))
    x[ids == 600] = plain.linear(weights, "model.mm_projector.2", features)
    expected = plain.llama_logits(weights, "model.", "lm_head", x, heads=4, kv_heads=4, eps=1e-5)
    with torch.inference_mode():
        logits = backbone.model(**inputs).logits[0]
    assert_close(logits, expected, absolute=pass_error(backbone.model, len(expected)) * expected.abs().max())


def test_it_does_what_every_backbone_does(backbone: Backbone) -> None:
    assert backbone.n_tokens_per_image == 36
    check_backbone(backbone)


@pytest.mark.parametrize("settings", [{}, {"memory_limit": 1}, {"cuda_graph": True}], ids=["one", "groups", "static"])
def test_a_sweep_answers_as_each_strategy_alone(backbone: Backbone, settings: dict[str, Any]) -> None:
    check_sweep(backbone, **settings)


def test_the_full_size_is_the_papers() -> None:
    vision = InternVLChatFamily().full_size().vision_config
    assert (vision.hidden_size, vision.num_attention_heads, vision.num_hidden_layers) == (3200, 25, 45)
