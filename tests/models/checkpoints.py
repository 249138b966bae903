"""Shrunk checkpoints as their authors lay them out: made-up tensors under the original names, in several files."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

Weights = dict[str, Tensor]
LLAMA: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
}  # fmt: skip
CLIP: dict[str, int] = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 7, "projection_dim": 8,
}  # fmt: skip
INTERN_VIT: dict[str, Any] = {
    "hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 6, "intermediate_size": 40, "image_size": 224,
    "patch_size": 56, "qkv_bias": False, "qk_normalization": True, "layer_norm_eps": 1e-6, "hidden_act": "gelu",
}  # fmt: skip


class Dice:
    """Made-up tensors, the same for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, spread: float = 0.2, around: float = 0.0) -> Tensor:
        return around + spread * torch.randn(shape, generator=self._generator)

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = True) -> Weights:
        made = {f"{name}.weight": self(outputs, inputs)}
        return made | ({f"{name}.bias": self(outputs)} if bias else {})

    def norm(self, name: str, width: int, bias: bool = True) -> Weights:
        made = {f"{name}.weight": self(width, around=1.0)}
        return made | ({f"{name}.bias": self(width)} if bias else {})


def llama(
    dice: Dice, prefix: str, head: str, vocabulary: int, fields: Mapping[str, Any], bias: bool = False
) -> Weights:
    """A LLaMA's tensors; with `bias`, Qwen 2's."""
    width, inner, heads = fields["hidden_size"], fields["intermediate_size"], fields["num_attention_heads"]
    size, kv_heads = width // heads, fields["num_key_value_heads"]
    made = {f"{prefix}embed_tokens.weight": dice(vocabulary, width), f"{head}.weight": dice(vocabulary, width)}
    made |= dice.norm(f"{prefix}norm", width, bias=False)
    for layer in range(fields["num_hidden_layers"]):
        name = f"{prefix}layers.{layer}"
        for part, outputs in (("q", heads * size), ("k", kv_heads * size), ("v", kv_heads * size)):
            made |= dice.linear(f"{name}.self_attn.{part}_proj", width, outputs, bias)
        made |= dice.linear(f"{name}.self_attn.o_proj", heads * size, width, bias=False)
        for part, shape in (("gate", (width, inner)), ("up", (width, inner)), ("down", (inner, width))):
            made |= dice.linear(f"{name}.mlp.{part}_proj", *shape, bias=False)
        for part in ("input_layernorm", "post_attention_layernorm"):
            made |= dice.norm(f"{name}.{part}", width, bias=False)
    return made


def clip(dice: Dice, prefix: str, fields: Mapping[str, int] = CLIP, siglip: bool = False) -> Weights:
    """A CLIP vision tower's tensors; with `siglip`, SigLIP's."""
    width, inner, patch = fields["hidden_size"], fields["intermediate_size"], fields["patch_size"]
    positions = (fields["image_size"] // patch) ** 2 + (not siglip)
    made = {
        f"{prefix}embeddings.patch_embedding.weight": dice(width, 3, patch, patch, spread=0.05),
        f"{prefix}embeddings.position_embedding.weight": dice(positions, width),
    }
    if siglip:
        made[f"{prefix}embeddings.patch_embedding.bias"] = dice(width)
    else:
        made[f"{prefix}embeddings.class_embedding"] = dice(width)
        made |= dice.norm(f"{prefix}pre_layrnorm", width)
    made |= dice.norm(f"{prefix}post_layernorm", width)
    for layer in range(fields["num_hidden_layers"]):
        name = f"{prefix}encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            made |= dice.linear(f"{name}.self_attn.{part}", width, width)
        made |= dice.linear(f"{name}.mlp.fc1", width, inner) | dice.linear(f"{name}.mlp.fc2", inner, width)
        made |= dice.norm(f"{name}.layer_norm1", width) | dice.norm(f"{name}.layer_norm2", width)
    return made


def write(folder: Path, config: Mapping[str, Any], weights: Weights, files: int = 3) -> None:
    """Writes configuration, weights in `files` safetensors files and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(weights)
    index: dict[str, str] = {}
    for number in range(files):
        file = f"model-{number + 1:05}-of-{files:05}.safetensors"
        part = names[number::files]
        save_file({name: weights[name].contiguous() for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def write_byte_tokenizer(folder: Path, specials: Mapping[str, int], bos: str | None = None, eos: str = "</s>") -> None:
    """A `tokenizer.json` of bytes from id 300 on, with special tokens at the ids given."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = dict(specials) | {letter: 300 + number for number, letter in enumerate(letters)}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(specials))
    known = {"bos_token": bos} if bos else {}
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, pad_token=eos, **known).save_pretrained(folder)


def sentencepiece_pieces() -> list[tuple[str, float, int]]:
    """Text, score and kind of a small LLaMA vocabulary: specials, bytes, then merged pieces from better to worse."""
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    merged = ["▁t", "he", "▁a", "▁the", "in", "▁w", "re", "on", "▁he", "and", "nd", "ing", "▁is", "is", "th", "▁th"]
    single = sorted(set("▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:?'[]/<>"))
    return pieces + [(text, -float(rank), 1) for rank, text in enumerate(merged + single)]


def write_sentencepiece(folder: Path, pieces: Iterable[tuple[str, float, int]] | None = None) -> None:
    """A `tokenizer.model` of the pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    message = b""
    for text, score, kind in sentencepiece_pieces() if pieces is None else pieces:
        encoded = text.encode()
        piece = b"\x0a" + bytes([len(encoded)]) + encoded + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
        message += b"\x0a" + bytes([len(piece)]) + piece
    message += b"\x12\x02\x18\x02"  # the trainer's settings, which nobody needs
    (folder / "tokenizer.model").write_bytes(message)


def llava(folder: Path, seed: int = 0) -> Weights:
    """A shrunk `llava-hf/llava-1.5-7b-hf`, in the layout of its repository."""
    dice = Dice(seed)
    weights = llama(dice, "language_model.model.", "language_model.lm_head", 600, LLAMA)
    weights |= clip(dice, "vision_tower.vision_model.")
    weights |= dice.linear("multi_modal_projector.linear_1", CLIP["hidden_size"], LLAMA["hidden_size"])
    weights |= dice.linear("multi_modal_projector.linear_2", LLAMA["hidden_size"], LLAMA["hidden_size"])
    config = {
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "image_token_index": 298,
        "pad_token_id": 299, "projector_hidden_act": "gelu", "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", "vocab_size": 600, "torch_dtype": "float16"} | LLAMA,
        "vision_config": {"model_type": "clip_vision_model", "vocab_size": 32000} | CLIP,
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
    }  # fmt: skip
    write(folder, config, weights)
    write_byte_tokenizer(folder, {"<unk>": 0, "<s>": 1, "</s>": 2, "<image>": 298, "<pad>": 299}, bos="<s>")
    return weights


def mobilevlm(folder: Path, seed: int = 0) -> Weights:
    """A shrunk `mtgv/MobileVLM_V2-3B`, in the layout of its repository, with its vision tower's sizes beside."""
    dice, width = Dice(seed), LLAMA["hidden_size"]
    clip_fields = CLIP | {"image_size": 56, "patch_size": 4}
    weights = llama(dice, "model.", "lm_head", 600, LLAMA)
    weights |= clip(dice, "model.vision_tower.vision_tower.vision_model.", clip_fields)
    weights |= dice.linear("model.mm_projector.mlp.mlp.0", CLIP["hidden_size"], width)
    weights |= dice.linear("model.mm_projector.mlp.mlp.2", width, width)
    weights["model.mm_projector.peg.peg.0.weight"] = dice(width, 1, 3, 3)
    weights["model.mm_projector.peg.peg.0.bias"] = dice(width)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = dice(4)
    config = {
        "architectures": ["MobileLlamaForCausalLM"], "model_type": "mobilevlm", "vocab_size": 600, **LLAMA,
        "mm_hidden_size": CLIP["hidden_size"], "mm_projector_type": "ldpnetv2", "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2, "mm_vision_tower": "openai/clip-vit-large-patch14-336", "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "rope_theta": 10000.0, "rope_scaling": None, "hidden_act": "silu",
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vision_config": clip_fields,
    }  # fmt: skip
    write(folder, config, weights)
    write_sentencepiece(folder)
    return weights


def internvl(folder: Path, seed: int = 0) -> Weights:
    """A shrunk `OpenGVLab/InternVL-Chat-ViT-6B-Vicuna-7B` in its layout, with its vision tower's sizes beside."""
    dice, width, text_width = Dice(seed), INTERN_VIT["hidden_size"], LLAMA["hidden_size"]
    inner, patch, tower = INTERN_VIT["intermediate_size"], INTERN_VIT["patch_size"], "model.vision_tower.vision_tower"
    weights = llama(dice, "model.", "lm_head", 600, LLAMA)
    weights |= {
        f"{tower}.embeddings.class_embedding": dice(1, 1, width),
        f"{tower}.embeddings.position_embedding": dice(1, 17, width),
        f"{tower}.embeddings.patch_embedding.weight": dice(width, 3, patch, patch, spread=0.01),
        f"{tower}.embeddings.patch_embedding.bias": dice(width),
    }
    for layer in range(INTERN_VIT["num_hidden_layers"]):
        name = f"{tower}.encoder.layers.{layer}"
        weights |= dice.linear(f"{name}.attn.qkv", width, 3 * width, bias=False)
        weights |= dice.linear(f"{name}.attn.proj", width, width)
        weights |= dice.linear(f"{name}.mlp.fc1", width, inner) | dice.linear(f"{name}.mlp.fc2", inner, width)
        for part in ("attn.q_norm", "attn.k_norm", "norm1", "norm2"):
            weights |= dice.norm(f"{name}.{part}", width, bias=False)
        weights |= {f"{name}.ls1": dice(width), f"{name}.ls2": dice(width)}
    weights |= dice.linear("model.mm_projector.0", width, text_width)
    weights |= dice.linear("model.mm_projector.2", text_width, text_width)
    config = {
        "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava", "vocab_size": 600, **LLAMA,
        "mm_hidden_size": width, "mm_projector_type": "mlp2x_gelu", "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -4, "mm_vision_tower": "OpenGVLab/InternViT-6B-224px", "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "rope_scaling": None, "hidden_act": "silu",
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vision_config": INTERN_VIT,
    }  # fmt: skip
    write(folder, config, weights)
    write_sentencepiece(folder)
    return weights
