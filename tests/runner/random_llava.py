"""A tiny LLaVA with random weights and a byte tokenizer, so that these tests need no trained model."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from lookm.models.backbone import Backbone

SPECIAL = ("<pad>", "<s>", "</s>", "<image>")


def load_random(
    device: str = "cpu",
    dtype: str = "float32",
    weights_seed: int = 0,
    batch_size: int = 3,
    max_new_tokens: int = 6,
    path: str | None = None,
) -> Backbone:
    """4 tokens per image, 2 layers; another `weights_seed` answers otherwise. `path` is only fingerprinted."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
    text = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=1024, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    torch.manual_seed(weights_seed)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=3, vision_feature_layer=-1)
    )
    model.generation_config.eos_token_id = 2
    return Backbone(
        name="random",
        model=model.eval().to(device=device, dtype=getattr(torch, dtype)),
        tokenizer=tokenizer,
        image_processor=CLIPImageProcessorPil(size={"height": 16, "width": 16}, do_center_crop=False),
        template="{question}",
        n_tokens_per_image=4,
        max_context_len=200,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label="random LLaVA",
    )
