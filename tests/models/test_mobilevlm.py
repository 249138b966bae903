"""MobileVLM V2: the original projector's outputs, and a checkpoint in the repository's layout."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from lookm.models.backbone import Backbone
from lookm.models.family import load_backbone
from lookm.models.mobilevlm import LDPNetV2, MobileVLMFamily
from tests.lookm.rounding import assert_close, pass_error
from tests.models import checkpoints, plain
from tests.models.claims import check_backbone, check_sweep, picture

GOLDEN = Path(__file__).parents[1] / "data" / "backbones" / "mobilevlm_ldpnetv2.safetensors"
LOAD: dict[str, Any] = {
    "family": "mobilevlm", "name": "mobilevlm3b", "template": "vicuna_v1", "label": "MobileVLM", "batch_size": 2,
    "max_context_len": 500, "max_new_tokens": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mobilevlm")
    checkpoints.mobilevlm(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Backbone:
    return load_backbone(path=folder, **LOAD)


def plain_projector(weights: plain.Weights, features: torch.Tensor) -> torch.Tensor:
    """(P, C) → (144, width): every token of the 12 × 12 grid is the mean of the patches under it, and so on."""
    name = "model.mm_projector"
    x = plain.linear(weights, f"{name}.mlp.mlp.2", plain.gelu(plain.linear(weights, f"{name}.mlp.mlp.0", features)))
    side = int(len(x) ** 0.5)
    edges = [(row * side // 12, -(-(row + 1) * side // 12)) for row in range(12)]
    grid = x.reshape(side, side, -1)
    pooled = torch.stack([grid[a:b, c:d].mean((0, 1)) for a, b in edges for c, d in edges]).reshape(12, 12, -1)
    around = F.pad(pooled, (0, 0, 1, 1, 1, 1))
    kernel, bias = weights[f"{name}.peg.peg.0.weight"], weights[f"{name}.peg.peg.0.bias"]
    moved = sum(around[i : i + 12, j : j + 12] * kernel[:, 0, i, j] for i in range(3) for j in range(3))
    return (pooled + moved + bias).flatten(0, 1)


def test_the_projector_gives_the_originals_outputs() -> None:
    golden = load_file(GOLDEN)
    projector = LDPNetV2(64, 80)
    ours = {"first": "mlp.mlp.0", "second": "mlp.mlp.2", "positional": "peg.peg.0"}
    for name, original in ours.items():
        for kind in ("weight", "bias"):
            getattr(projector, name).get_parameter(kind).data = golden[f"model.mm_projector.{original}.{kind}"]
    assert torch.allclose(projector(golden["input"]), golden["output"], atol=1e-4)
    for features, output in zip(golden["input"], golden["output"], strict=True):
        assert torch.allclose(plain_projector(plain.double(golden), features.double()), output.double(), atol=1e-4)


def test_logits_equal_a_plain_computation(backbone: Backbone, folder: Path) -> None:
    inputs = backbone.inputs(["the<ImageHere> and<ImageHere>"], [[picture(0, (28, 9)), picture(1, (40, 40))]])
    weights = plain.double({k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()})
    ids = inputs["input_ids"][0]
    x = torch.zeros(len(ids), 32, dtype=torch.float64)
    x[ids != 600] = weights["model.embed_tokens.weight"][ids[ids != 600]]
    tower = "model.vision_tower.vision_tower.vision_model."
    features = [plain.clip_features(weights, tower, p.double(), heads=2, layers=2) for p in inputs["pixel_values"]]
    x[ids == 600] = torch.cat([plain_projector(weights, feature) for feature in features])
    expected = plain.llama_logits(weights, "model.", "lm_head", x, heads=4, kv_heads=4, eps=1e-5)
    with torch.inference_mode():
        logits = backbone.model(**inputs).logits[0]
    assert_close(logits, expected, absolute=pass_error(backbone.model, len(expected)) * expected.abs().max())


def test_it_does_what_every_backbone_does(backbone: Backbone) -> None:
    assert backbone.n_tokens_per_image == 144
    check_backbone(backbone)


@pytest.mark.parametrize("settings", [{}, {"memory_limit": 1}, {"cuda_graph": True}], ids=["one", "groups", "static"])
def test_a_sweep_answers_as_each_strategy_alone(backbone: Backbone, settings: dict[str, Any]) -> None:
    check_sweep(backbone, **settings)


def test_text_pieces_are_cut_one_by_one_after_one_bos(backbone: Backbone) -> None:
    cut = lambda text: backbone.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    before, after = backbone.template.split("{question}")
    ids = backbone.prompt_tokens("the<ImageHere> is")
    assert ids == [1, *cut(before + "the"), *[600] * 144, *cut(" is" + after)]
    assert ids.count(1) == 1


def test_the_full_size_has_heads_of_80() -> None:
    config = MobileVLMFamily().full_size()
    text = config.text_config
    assert text.hidden_size // text.num_attention_heads == 80
    assert config.vision_config.num_hidden_layers == 23
