"""The tiny models that are shipped: they load by themselves, are small, and answer held-out questions."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration, Qwen2VLForConditionalGeneration

from benchmarks.mini.benchmark import mini_benchmark
from benchmarks.mini.sample import PLACES, Place
from lookm.errors import LookmError
from lookm.models.tiny import FOLDERS, SHIPPED, load_tiny
from lookm.registry import load_model
from scripts.tiny_training.card import examine

PARTS = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "processor_config.json"}


@pytest.mark.parametrize("model", ["tiny_llava", "tiny_qwen"])
def test_the_shipped_folder_is_complete_and_at_most_ten_megabytes(model: str) -> None:
    files = {file.name.replace("preprocessor", "processor"): file.stat().st_size for file in FOLDERS[model].iterdir()}
    assert PARTS | {"README.md", "tokenizer_config.json"} == set(files)
    assert sum(files.values()) <= 10_000_000


def test_the_model_loads_without_this_package() -> None:
    model = LlavaForConditionalGeneration.from_pretrained(SHIPPED)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert 1e6 <= sum(p.numel() for p in model.parameters()) <= 4e6
    text = model.config.get_text_config()
    assert text.num_attention_heads == text.num_key_value_heads
    assert text.hidden_size // text.num_attention_heads >= 16
    assert text.max_position_embeddings >= 2048
    assert AutoProcessor.from_pretrained(SHIPPED).image_token == "<image>"


def test_the_processor_makes_the_same_inputs_as_the_backbone() -> None:
    image, backbone = Image.new("RGB", (32, 32), (200, 30, 90)), load_tiny()
    mine = backbone.inputs([" ada<ImageHere> bob"], [[image]])
    theirs = AutoProcessor.from_pretrained(SHIPPED)(
        images=[image], text="<s> ada<image> bobANSWER:", return_tensors="pt"
    )
    assert torch.equal(mine["input_ids"], theirs["input_ids"])
    assert torch.allclose(mine["pixel_values"], theirs["pixel_values"])


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_it_is_loaded_in_evaluation_mode_and_in_the_dtype_asked_for(dtype: str, expected: torch.dtype) -> None:
    backbone = load_tiny(dtype=dtype, batch_size=3)
    assert not backbone.model.training
    assert backbone.model.dtype == expected
    assert (backbone.n_tokens_per_image, backbone.batch_size) == (16, 3)


def test_wrong_folders_and_dtypes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LookmError, match=r"no model in .*: train one with"):
        load_tiny(path=tmp_path)
    with pytest.raises(LookmError, match="shipped='tiny' is none of tiny_llava, tiny_qwen"):
        load_tiny(shipped="tiny")
    with pytest.raises(LookmError, match="dtype 'int8' is none of float32"):
        load_tiny(dtype="int8")


@pytest.mark.parametrize("place", PLACES)
def test_the_shipped_weights_do_every_task_on_held_out_questions(tmp_path: Path, place: Place) -> None:
    """Of a question that stands first, before 40 images, less is required: N-1 and S-1 are at half and two thirds."""
    marks = examine(load_tiny(), mini_benchmark(tmp_path, samples=16, seed=1, question=place))
    assert len(marks) == 12
    assert not [mark for mark in marks if mark.score < (0.75 if place == "last" else mark.chance + 0.25)]


def test_the_second_model_is_of_another_family_and_does_every_task(tmp_path: Path) -> None:
    """S-2 and N-2, of handwritten digits, are its weakest."""
    backbone = load_model("tiny_qwen", device="cpu")
    assert isinstance(backbone.model, Qwen2VLForConditionalGeneration)
    text = backbone.model.config.get_text_config()
    assert text.num_attention_heads == 2 * text.num_key_value_heads
    assert text.rope_parameters["mrope_section"] == [8, 4, 4]
    marks = examine(backbone, mini_benchmark(tmp_path, samples=16, seed=1))
    assert not [mark for mark in marks if mark.score < 0.5], marks
    assert sum(mark.score for mark in marks) >= 0.85 * len(marks)
