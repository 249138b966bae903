"""Tiny random vision-language models of transformers' own classes, and one prompt with two images for each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

IMAGE = 97
TEXT: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 98,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
ROTARY = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}


def llama(**fields: Any) -> dict[str, Any]:
    return {"model_type": "llama", **TEXT, **fields}


def pictures(*shape: int) -> Callable[[int], dict[str, Tensor]]:
    """Inputs of so many images, of this shape each."""
    return lambda n: {"pixel_values": torch.randn(n, *shape)}


def patches(size: int, grid: tuple[int, int, int] = (1, 4, 4)) -> Callable[[int], dict[str, Tensor]]:
    """As Qwen2-VL takes images: flattened patches and their grid."""
    tokens = grid[0] * grid[1] * grid[2]
    return lambda n: {"pixel_values": torch.randn(n * tokens, size), "image_grid_thw": torch.tensor([grid] * n)}


def with_types(images: Callable[[int], dict[str, Tensor]], name: str) -> Callable[[int], dict[str, Tensor]]:
    """Also say, by this name, which tokens are of images: filled in where the prompt is made."""
    return lambda n: {**images(n), name: torch.zeros(0, dtype=torch.long)}


QWEN_VISION = {
    "depth": 2,
    "embed_dim": 32,
    "hidden_size": 32,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
    "in_chans": 3,
}

# name → (fields of the configuration, tokens of an image, inputs of n images)
VISION_MODELS: dict[str, tuple[dict[str, Any], int, Callable[[int], dict[str, Tensor]]]] = {
    "llava": (
        {
            "text_config": llama(),
            "vision_config": {"model_type": "clip_vision_model", **VISION},
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
            "image_seq_length": 16,
        },
        16,
        pictures(3, 16, 16),
    ),
    "llava (mistral with a window)": (
        {
            "text_config": {"model_type": "mistral", **TEXT, "sliding_window": 16},
            "vision_config": {"model_type": "clip_vision_model", **VISION},
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
            "image_seq_length": 16,
        },
        16,
        pictures(3, 16, 16),
    ),
    "vipllava": (
        {
            "text_config": llama(),
            "vision_config": {"model_type": "clip_vision_model", **VISION},
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
            "image_seq_length": 16,
            "vision_feature_layers": [-1, -2],
        },
        16,
        pictures(3, 16, 16),
    ),
    "internvl": (
        {
            "text_config": {"model_type": "qwen2", **TEXT},
            "vision_config": {
                "model_type": "internvl_vision",
                **VISION,
                "image_size": [16, 16],
                "patch_size": [4, 4],
                "use_mean_pooling": True,
            },
            "image_token_id": IMAGE,
            "image_seq_length": 4,
        },
        4,
        pictures(3, 16, 16),
    ),
    "qwen2_vl": (
        {
            "text_config": {"model_type": "qwen2_vl_text", **TEXT, **ROTARY},
            "vision_config": {**QWEN_VISION, "hidden_size": 32},
            "image_token_id": IMAGE,
            "video_token_id": 96,
            "vision_start_token_id": 95,
            "vision_end_token_id": 94,
        },
        4,
        with_types(patches(3 * 2 * 16), "mm_token_type_ids"),
    ),
    "qwen2_5_vl": (
        {
            "text_config": {"model_type": "qwen2_5_vl_text", **TEXT, **ROTARY},
            "vision_config": {
                **QWEN_VISION,
                "intermediate_size": 48,
                "out_hidden_size": 32,
                "fullatt_block_indexes": [1],
                "window_size": 16,
            },
            "image_token_id": IMAGE,
            "video_token_id": 96,
            "vision_start_token_id": 95,
            "vision_end_token_id": 94,
        },
        4,
        with_types(patches(3 * 2 * 16), "mm_token_type_ids"),
    ),
    "qwen3_vl": (
        {
            "text_config": {"model_type": "qwen3_vl_text", **TEXT, "head_dim": 8, **ROTARY},
            "vision_config": {
                **QWEN_VISION,
                "intermediate_size": 48,
                "out_hidden_size": 32,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
            "image_token_id": IMAGE,
            "video_token_id": 96,
            "vision_start_token_id": 95,
            "vision_end_token_id": 94,
        },
        4,
        with_types(patches(3 * 2 * 16), "mm_token_type_ids"),
    ),
    "paligemma (without token_type_ids)": (
        {
            "text_config": {"model_type": "gemma", **TEXT, "head_dim": 8},
            "projection_dim": 32,
            "vision_config": {"model_type": "siglip_vision_model", **VISION, "projection_dim": 32},
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
        },
        16,
        pictures(3, 16, 16),
    ),
    "paligemma": (
        {
            "text_config": {"model_type": "gemma", **TEXT, "head_dim": 8},
            "projection_dim": 32,
            "vision_config": {"model_type": "siglip_vision_model", **VISION, "projection_dim": 32},
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
        },
        16,
        with_types(pictures(3, 16, 16), "token_type_ids"),
    ),
    "gemma3 (without token_type_ids)": (
        {
            "text_config": {
                "model_type": "gemma3_text",
                **TEXT,
                "head_dim": 8,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "vision_config": {"model_type": "siglip_vision_model", **VISION},
            "mm_tokens_per_image": 4,
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
            "boi_token_index": 95,
            "eoi_token_index": 94,
        },
        4,
        pictures(3, 16, 16),
    ),
    "gemma3": (
        {
            "text_config": {
                "model_type": "gemma3_text",
                **TEXT,
                "head_dim": 8,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "vision_config": {"model_type": "siglip_vision_model", **VISION},
            "mm_tokens_per_image": 4,
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
            "boi_token_index": 95,
            "eoi_token_index": 94,
        },
        4,
        with_types(pictures(3, 16, 16), "token_type_ids"),
    ),
    "mistral3": (
        {
            "text_config": {"model_type": "mistral", **TEXT, "sliding_window": None, "head_dim": 8},
            "vision_config": {"model_type": "pixtral", **VISION},
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
            "spatial_merge_size": 2,
            "vision_feature_layer": -1,
        },
        4,
        lambda n: {"pixel_values": torch.randn(n, 3, 16, 16), "image_sizes": torch.tensor([[16, 16]] * n)},
    ),
    "idefics2": (
        {
            "text_config": {"model_type": "mistral", **TEXT, "sliding_window": None},
            "vision_config": VISION,
            "perceiver_config": {
                "resampler_n_latents": 4,
                "resampler_depth": 1,
                "resampler_n_heads": 2,
                "resampler_head_dim": 8,
                "num_key_value_heads": 1,
                "hidden_size": 32,
            },
            "image_token_id": IMAGE,
        },
        4,
        lambda n: {"pixel_values": torch.randn(1, n, 3, 16, 16)},
    ),
    "idefics3": (
        {"text_config": llama(), "vision_config": VISION, "image_token_id": IMAGE, "scale_factor": 2},
        4,
        lambda n: {"pixel_values": torch.randn(1, n, 3, 16, 16)},
    ),
    "smolvlm": (
        {"text_config": llama(), "vision_config": VISION, "image_token_id": IMAGE, "scale_factor": 2},
        4,
        lambda n: {"pixel_values": torch.randn(1, n, 3, 16, 16)},
    ),
    "aya_vision": (
        {
            "text_config": {
                "model_type": "cohere2",
                **TEXT,
                "head_dim": 8,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "vision_config": {"model_type": "siglip_vision_model", **VISION},
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
            "downsample_factor": 2,
            "adapter_layer_norm_eps": 1e-6,
        },
        4,
        pictures(3, 16, 16),
    ),
    "got_ocr2": (
        {
            "text_config": {"model_type": "qwen2", **TEXT},
            "vision_config": {
                "hidden_size": 32,
                "output_channels": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 128,
                "patch_size": 8,
                "mlp_dim": 48,
                "window_size": 2,
                "global_attn_indexes": [],
            },
            "image_token_id": IMAGE,
            "image_token_index": IMAGE,
            "image_seq_length": 16,
        },
        16,
        pictures(3, 128, 128),
    ),
    "llava_next": (
        {
            "text_config": llama(),
            "vision_config": {"model_type": "clip_vision_model", **VISION},
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
            "image_grid_pinpoints": [[16, 16]],
        },
        36,
        lambda n: {"pixel_values": torch.randn(n, 2, 3, 16, 16), "image_sizes": torch.tensor([[16, 16]] * n)},
    ),
    "llava_onevision": (
        {
            "text_config": {"model_type": "qwen2", **TEXT},
            "vision_config": {"model_type": "siglip_vision_model", **VISION},
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
            "video_token_index": 96,
            "video_token_id": 96,
            "image_grid_pinpoints": [[16, 16]],
            "vision_feature_layer": -1,
            "vision_aspect_ratio": "anyres_max_9",
        },
        36,
        lambda n: {"pixel_values": torch.randn(n, 2, 3, 16, 16), "image_sizes": torch.tensor([[16, 16]] * n)},
    ),
    "mllama": (
        {
            "text_config": {
                **TEXT,
                "num_hidden_layers": 3,
                "cross_attention_layers": [1],
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            },
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_global_layers": 1,
                "attention_heads": 2,
                "image_size": 16,
                "patch_size": 4,
                "max_num_tiles": 1,
                "vision_output_dim": 64,
                "intermediate_layers_indices": [0],
                "supported_aspect_ratios": [[1, 1]],
            },
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
        },
        1,
        lambda n: {
            "pixel_values": torch.randn(1, n, 1, 3, 16, 16),
            "aspect_ratio_ids": torch.ones(1, n, dtype=torch.long),
            "aspect_ratio_mask": torch.ones(1, n, 1, dtype=torch.long),
        },
    ),
    "llama4": (
        {
            "text_config": {
                **TEXT,
                "head_dim": 8,
                "attention_chunk_size": 8,
                "intermediate_size_mlp": 48,
                "num_local_experts": 2,
                "num_experts_per_tok": 1,
                "layer_types": ["chunked_attention", "full_attention"],
                "no_rope_layers": [1, 0],
            },
            "vision_config": {
                **VISION,
                "pixel_shuffle_ratio": 0.5,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
                "vision_output_dim": 32,
                "intermediate_size": 128,
            },
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
            "boi_token_index": 95,
            "eoi_token_index": 94,
        },
        4,
        pictures(3, 16, 16),
    ),
    "cohere2_vision": (
        {
            "text_config": {
                "model_type": "cohere2",
                **TEXT,
                "head_dim": 8,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "vision_config": {"model_type": "siglip_vision_model", **VISION},
            "image_token_id": IMAGE,
            "downsample_factor": 2,
            "alignment_intermediate_size": 64,
        },
        4,
        pictures(3, 16, 16),
    ),
    "glm4v": (
        {
            "text_config": {"model_type": "glm4v_text", **TEXT, **ROTARY},
            "vision_config": {**QWEN_VISION, "intermediate_size": 48, "out_hidden_size": 32, "image_size": 16},
            "image_token_id": IMAGE,
            "video_token_id": 96,
            "image_start_token_id": 95,
            "image_end_token_id": 94,
        },
        4,
        with_types(patches(3 * 2 * 16), "mm_token_type_ids"),
    ),
    "blip-2": (
        {
            "text_config": {"model_type": "opt", **TEXT, "ffn_dim": 48, "word_embed_proj_dim": 32},
            "vision_config": VISION,
            "qformer_config": {
                "vocab_size": 99,
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 48,
                "encoder_hidden_size": 32,
                "cross_attention_frequency": 1,
            },
            "num_query_tokens": 4,
            "image_token_index": IMAGE,
            "image_token_id": IMAGE,
        },
        4,
        pictures(3, 16, 16),
    ),
    "fuyu": (
        {
            "text_config": {"model_type": "persimmon", **TEXT},
            **TEXT,
            "image_size": 16,
            "patch_size": 4,
            "image_token_id": IMAGE,
        },
        16,
        lambda n: {"image_patches": torch.randn(1, n * 16, 48)},
    ),
    "ovis2": (
        {
            "text_config": {"model_type": "qwen2", **TEXT},
            "vision_config": {**VISION, "vocab_size": 64, "hidden_stride": 2, "num_visual_indicator_tokens": 5},
            "image_token_id": IMAGE,
            "visual_indicator_token_ids": [91, 92, 93, 94, 95],
            "hidden_size": 32,
            "vocab_size": 120,
        },
        4,
        pictures(3, 16, 16),
    ),
    "kosmos-2": (
        {
            "text_config": {
                "vocab_size": 120,
                "embed_dim": 32,
                "layers": 2,
                "ffn_dim": 48,
                "attention_heads": 4,
                "max_position_embeddings": 256,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 98,
            },
            "vision_config": VISION,
            "latent_query_num": 4,
        },
        4,
        with_types(pictures(3, 16, 16), "image_embeds_position_mask"),
    ),
}


def vision_model(name: str) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """The model of a row of `VISION_MODELS`, and a prompt of text, two images and text between and after them."""
    fields, tokens, images = VISION_MODELS[name]
    kind = name.split(" ")[0]
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, **fields)).eval()
    text = [torch.randint(3, 90, (n,)) for n in (7, 5, 12)]
    image = torch.full((tokens,), IMAGE)
    ids = torch.cat([text[0], image, text[1], image, text[2]])[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images(2)}
    inputs |= {name: (ids == IMAGE).long() for name, given in inputs.items() if not given.numel()}
    return model, inputs
