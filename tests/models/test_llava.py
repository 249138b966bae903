"""LLaVA-1.5: pixels as the original makes them, and a checkpoint in the repository's layout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lookm.models.backbone import Backbone
from lookm.models.family import clip_processor, load_backbone, mean_colour
from tests.lookm.rounding import assert_close, pass_error
from tests.models import checkpoints, plain
from tests.models.claims import check_backbone, check_sweep, picture

GOLDEN = Path(__file__).parents[1] / "data" / "backbones" / "llava_pixels.safetensors"
LOAD: dict[str, Any] = {
    "family": "llava", "name": "llava7b", "size": "7b", "template": "llava_llama_2", "label": "LLaVA",
    "batch_size": 2, "max_context_len": 500, "max_new_tokens": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    checkpoints.llava(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Backbone:
    return load_backbone(path=folder, **LOAD)


def reference_logits(folder: Path, ids: list[int], pixels: torch.Tensor) -> torch.Tensor:
    weights = plain.double({k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()})
    x = weights["language_model.model.embed_tokens.weight"][torch.tensor(ids)]
    features = torch.cat(
        [plain.clip_features(weights, "vision_tower.vision_model.", p, heads=2, layers=2) for p in pixels]
    )
    features = plain.gelu(plain.linear(weights, "multi_modal_projector.linear_1", features))
    x[torch.tensor(ids) == 298] = plain.linear(weights, "multi_modal_projector.linear_2", features)
    return plain.llama_logits(
        weights, "language_model.model.", "language_model.lm_head", x, heads=4, kv_heads=4, eps=1e-5
    )


def test_pixels_are_the_originals() -> None:
    golden = load_file(GOLDEN)
    processor = clip_processor(336)
    backbone = Backbone("", None, None, processor, "", 576, 1, 1, 1, "", background=mean_colour())  # type: ignore[arg-type]
    for number in range(4):
        image = Image.fromarray(golden[f"image{number}"].numpy())
        ours, theirs = backbone.pixels([image])[0], golden[f"pixels{number}"]
        assert ours.shape == theirs.shape == (3, 336, 336)
        # The golden pixels were rounded to float16: half a unit in the last place, and 1e-4.
        assert ((ours - theirs.float()).abs() <= theirs.float().abs() * 2**-11 + 1e-4).all()


def test_the_padding_is_the_mean_colour() -> None:
    assert mean_colour() == (122, 116, 104)


def test_logits_equal_a_plain_computation(backbone: Backbone, folder: Path) -> None:
    inputs = backbone.inputs(["a<ImageHere> b<ImageHere>"], [[picture(0, (28, 9)), picture(1, (40, 40))]])
    expected = reference_logits(folder, inputs["input_ids"][0].tolist(), inputs["pixel_values"].double())
    with torch.inference_mode():
        logits = backbone.model(**inputs).logits[0]
    assert_close(logits, expected, absolute=pass_error(backbone.model, len(expected)) * expected.abs().max())


def test_it_does_what_every_backbone_does(backbone: Backbone) -> None:
    assert backbone.n_tokens_per_image == 16
    check_backbone(backbone)


@pytest.mark.parametrize("settings", [{}, {"memory_limit": 1}, {"cuda_graph": True}], ids=["one", "groups", "static"])
def test_a_sweep_answers_as_each_strategy_alone(backbone: Backbone, settings: dict[str, Any]) -> None:
    check_sweep(backbone, **settings)
