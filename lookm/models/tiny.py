"""The tiny LLaVA that is shipped with the repository, trained on MileBench-mini by `scripts/train_tiny.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lookm.errors import LookmError

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

ANSWER = "ANSWER:"
TEMPLATE = "{question}" + ANSWER
SHIPPED = Path(__file__).parent / "tiny_llava"


def load_tiny(
    *,
    path: str | Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 8,
    max_context_len: int = 2000,
    max_new_tokens: int = 16,
    name: str = "tiny",
) -> Backbone:
    """Load the tiny LLaVA.

    Args:
        path: folder in Hugging Face format; None means the one in this package.
        device: where it runs, such as `cpu` or `cuda`.
        dtype: `float32`, `bfloat16` or `float16`.
        batch_size: prompts per `generate` call.
        max_context_len: longest prompt in tokens.
        max_new_tokens: longest answer in tokens.
        name: what the run folder calls it.

    Raises:
        LookmError: the folder holds no model, or `dtype` is none.
    """
    import torch  # SHIPPED is asked for where nothing is loaded
    from transformers import AutoTokenizer, CLIPImageProcessorPil, LlavaForConditionalGeneration

    from lookm.models.backbone import Backbone

    folder = SHIPPED if path is None else Path(path)
    if not (folder / "config.json").is_file():
        raise LookmError(f"no model in {folder}: train one with `python -m scripts.train_tiny --output {folder}`")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise LookmError(f"dtype {dtype!r} is none of float32, bfloat16, float16")
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype))
    return Backbone(
        name=name,
        model=model.eval().to(device),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        image_processor=CLIPImageProcessorPil.from_pretrained(folder),
        template=TEMPLATE,
        n_tokens_per_image=model.config.image_seq_length,
        max_context_len=max_context_len,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label="tiny LLaVA (trained on MileBench-mini)",
    )
