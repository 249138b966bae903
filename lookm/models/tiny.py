"""The tiny models that are shipped with the repository, trained on MileBench-mini by `scripts/train_tiny.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookm.errors import LookmError

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

ANSWER = "ANSWER:"
TEMPLATE = "{question}" + ANSWER
TOKENS_PER_IMAGE = 16


SHIPPED = Path(__file__).with_name("tiny_llava")
FOLDERS = {folder.name: folder for folder in (SHIPPED, SHIPPED.with_name("tiny_qwen"))}
"""The models in this package by name."""


def load_tiny(
    *,
    path: str | Path | None = None,
    shipped: str = SHIPPED.name,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 8,
    max_context_len: int = 2000,
    max_new_tokens: int = 16,
    name: str = "tiny",
) -> Backbone:
    """Load a tiny model.

    Args:
        path: folder in Hugging Face format, of a LLaVA or a Qwen2-VL; None means the one of this package that
            `shipped` names.
        shipped: one of FOLDERS.
        device: where it runs, such as `cpu` or `cuda`.
        dtype: `float32`, `bfloat16` or `float16`.
        batch_size: prompts per `generate` call.
        max_context_len: longest prompt in tokens.
        max_new_tokens: longest answer in tokens.
        name: what the run folder calls it.

    Raises:
        LookmError: the folder holds no such model, or `dtype` is none.
    """
    import torch  # SHIPPED is asked for where nothing is loaded
    from transformers import AutoTokenizer

    if shipped not in FOLDERS:
        raise LookmError(f"shipped={shipped!r} is none of {', '.join(FOLDERS)}")
    folder = FOLDERS[shipped] if path is None else Path(path)
    if not (folder / "config.json").is_file():
        raise LookmError(f"no model in {folder}: train one with `python -m scripts.train_tiny --output {folder}`")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise LookmError(f"dtype {dtype!r} is none of float32, bfloat16, float16")
    family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if family == "llava":
        backbone, model_class, processor, label = _llava()
    elif family == "qwen2_vl":
        backbone, model_class, processor, label = _qwen()
    else:
        raise LookmError(f"{folder} holds a model of type {family!r}, which is none of llava, qwen2_vl")
    model = model_class.from_pretrained(folder, dtype=getattr(torch, dtype))
    return backbone(
        name=name,
        model=model.eval().to(device),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        image_processor=processor.from_pretrained(folder),
        template=TEMPLATE,
        n_tokens_per_image=TOKENS_PER_IMAGE,
        max_context_len=max_context_len,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label=f"{label} (trained on MileBench-mini)",
    )


def _llava() -> tuple[type[Backbone], Any, Any, str]:
    from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration

    from lookm.models.backbone import Backbone

    return Backbone, LlavaForConditionalGeneration, CLIPImageProcessorPil, "tiny LLaVA"


def _qwen() -> tuple[type[Backbone], Any, Any, str]:
    from transformers import Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

    from lookm.models.qwen2_5vl import QwenBackbone

    return QwenBackbone, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil, "tiny Qwen2-VL"
