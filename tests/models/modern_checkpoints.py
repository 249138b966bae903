"""Shrunk checkpoints of Qwen2.5-VL, LLaVA-OneVision and InternVL3 in the layouts of their repositories."""

from pathlib import Path
from typing import Any

from tests.models.checkpoints import Dice, Weights, clip, llama, write, write_byte_tokenizer

IMAGE, VIDEO, BEFORE, AFTER = 290, 291, 292, 293
QWEN: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "vocab_size": 600, "tie_word_embeddings": False, "bos_token_id": 295, "eos_token_id": 296,
}  # fmt: skip
QWEN_VISION: dict[str, Any] = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 64, "patch_size": 4,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16, "fullatt_block_indexes": [1],
    "tokens_per_second": 2, "in_chans": 3, "hidden_act": "silu",
}  # fmt: skip
SIGLIP: dict[str, int] = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 30,
    "patch_size": 6,
}  # fmt: skip
INTERN3_VISION: dict[str, Any] = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": [32, 32], "patch_size": [8, 8], "attention_bias": True, "use_qk_norm": False,
    "norm_type": "layer_norm", "layer_norm_eps": 1e-6, "use_mean_pooling": True, "hidden_act": "gelu",
    "model_type": "internvl_vision",
}  # fmt: skip


def qwen2_5vl(folder: Path, seed: int = 0) -> Weights:
    """A shrunk `Qwen/Qwen2.5-VL-7B-Instruct`."""
    dice, width, inner = Dice(seed), QWEN_VISION["hidden_size"], QWEN_VISION["intermediate_size"]
    weights = llama(dice, "model.", "lm_head", 600, QWEN, bias=True)
    weights["visual.patch_embed.proj.weight"] = dice(width, 3, 2, 4, 4)
    for layer in range(QWEN_VISION["depth"]):
        name = f"visual.blocks.{layer}"
        weights |= dice.norm(f"{name}.norm1", width, bias=False) | dice.norm(f"{name}.norm2", width, bias=False)
        weights |= dice.linear(f"{name}.attn.qkv", width, 3 * width) | dice.linear(f"{name}.attn.proj", width, width)
        for part, shape in (("gate", (width, inner)), ("up", (width, inner)), ("down", (inner, width))):
            weights |= dice.linear(f"{name}.mlp.{part}_proj", *shape)
    weights |= dice.norm("visual.merger.ln_q", width, bias=False)
    weights |= dice.linear("visual.merger.mlp.0", 4 * width, 4 * width)
    weights |= dice.linear("visual.merger.mlp.2", 4 * width, QWEN["hidden_size"])
    config = QWEN | {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "image_token_id": IMAGE,
        "video_token_id": VIDEO, "vision_start_token_id": BEFORE, "vision_end_token_id": AFTER,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "vision_config": QWEN_VISION,
        "use_sliding_window": False,
    }  # fmt: skip
    write(folder, config, weights)
    specials = {"<|image_pad|>": IMAGE, "<|video_pad|>": VIDEO, "<|vision_start|>": BEFORE, "<|vision_end|>": AFTER}
    write_byte_tokenizer(folder, specials | _CHAT, eos="<|im_end|>")
    return weights


def llava_onevision(folder: Path, seed: int = 0) -> Weights:
    """A shrunk `llava-hf/llava-onevision-qwen2-7b-ov-hf`."""
    dice, width = Dice(seed), QWEN["hidden_size"]
    weights = llama(dice, "language_model.model.", "language_model.lm_head", 600, QWEN, bias=True)
    weights |= clip(dice, "vision_tower.vision_model.", SIGLIP, siglip=True)
    weights |= dice.linear("multi_modal_projector.linear_1", SIGLIP["hidden_size"], width)
    weights |= dice.linear("multi_modal_projector.linear_2", width, width)
    weights["image_newline"] = dice(width)
    config = {
        "architectures": ["LlavaOnevisionForConditionalGeneration"], "model_type": "llava_onevision",
        "image_token_index": IMAGE, "video_token_index": VIDEO, "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9", "tie_word_embeddings": False,
        "image_grid_pinpoints": [[30, 30], [30, 60], [60, 30]], "text_config": QWEN | {"model_type": "qwen2"},
        "vision_config": SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False},
    }  # fmt: skip
    write(folder, config, weights)
    write_byte_tokenizer(folder, {"<image>": IMAGE, "<video>": VIDEO} | _CHAT, eos="<|im_end|>")
    return weights


def internvl3(folder: Path, seed: int = 0) -> Weights:
    """A shrunk `OpenGVLab/InternVL3-8B-hf`."""
    dice, vision = Dice(seed), INTERN3_VISION
    width, inner, text_width = vision["hidden_size"], vision["intermediate_size"], QWEN["hidden_size"]
    weights = llama(dice, "language_model.model.", "language_model.lm_head", 600, QWEN, bias=True)
    tower = "vision_tower"
    weights |= {
        f"{tower}.embeddings.cls_token": dice(1, 1, width),
        f"{tower}.embeddings.position_embeddings": dice(1, 17, width),
        f"{tower}.embeddings.patch_embeddings.projection.weight": dice(width, 3, 8, 8, spread=0.05),
        f"{tower}.embeddings.patch_embeddings.projection.bias": dice(width),
    }
    for layer in range(vision["num_hidden_layers"]):
        name = f"{tower}.encoder.layer.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "projection_layer"):
            weights |= dice.linear(f"{name}.attention.{part}", width, width)
        weights |= dice.linear(f"{name}.mlp.fc1", width, inner) | dice.linear(f"{name}.mlp.fc2", inner, width)
        weights |= dice.norm(f"{name}.layernorm_before", width) | dice.norm(f"{name}.layernorm_after", width)
        weights |= {f"{name}.lambda_1": dice(width), f"{name}.lambda_2": dice(width)}
    weights |= dice.norm("multi_modal_projector.layer_norm", 4 * width)
    weights |= dice.linear("multi_modal_projector.linear_1", 4 * width, text_width)
    weights |= dice.linear("multi_modal_projector.linear_2", text_width, text_width)
    config = {
        "architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl", "image_token_id": IMAGE,
        "image_seq_length": 4, "downsample_ratio": 0.5, "projector_hidden_act": "gelu", "tie_word_embeddings": False,
        "vision_feature_layer": -1, "vision_feature_select_strategy": "default",
        "text_config": QWEN | {"model_type": "qwen2"}, "vision_config": vision,
    }  # fmt: skip
    write(folder, config, weights)
    write_byte_tokenizer(folder, {"<IMG_CONTEXT>": IMAGE, "<img>": BEFORE, "</img>": AFTER} | _CHAT, eos="<|im_end|>")
    return weights


_CHAT = {"<|im_start|>": 294, "<|endoftext|>": 295, "<|im_end|>": 296}
