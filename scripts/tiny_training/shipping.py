"""Writes the trained model in Hugging Face format, small enough for a repository."""

import shutil
import tempfile
from pathlib import Path

from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

from .architecture import IMAGE, PATCH, build_image_processor


def ship(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights (safetensors, float32), tokenizer and processor; each file appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    processor = LlavaProcessor(
        image_processor=build_image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        image_token=IMAGE,
        num_additional_image_tokens=1,  # CLIP's class token, which the strategy drops
    )
    temporary = Path(tempfile.mkdtemp(prefix=".tiny-", dir=folder.parent))
    try:
        implementation = model.config._attn_implementation
        model.set_attn_implementation("sdpa")
        model.save_pretrained(temporary)
        model.set_attn_implementation(implementation)
        processor.save_pretrained(temporary)
        for file in sorted(temporary.iterdir()):
            file.chmod(0o644)
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
