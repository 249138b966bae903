"""The tiny LLaVA before training: its tokenizer, its image processor, its configuration."""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from benchmarks.mini.pictures import SIZE
from benchmarks.mini.sample import CHOICES, CUE, LETTERS
from lookm.models.tiny import ANSWER

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
PATCH = 8
TOKENS_PER_IMAGE = (SIZE // PATCH) ** 2
PROJECTOR_SCALE = 0.2
INITIALIZER_RANGE = 0.08  # with the usual 0.02 nothing is learnt in the first quarter of an hour


def build_tokenizer(corpus: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every word of `corpus` is one token; any other text still becomes bytes.

    MileBench's fixed phrases are one token each, so that short prompts are not drowned in them.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(sorted(corpus), trainer)
    phrases = [ANSWER, CUE, f"{CHOICES}{LETTERS[0]}.", *(f"\n{letter}." for letter in LETTERS[1:])]
    core.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def build_image_processor() -> CLIPImageProcessorPil:
    """CLIP's processor for 32 × 32 pictures; it normalises to -1 … 1."""
    return CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int, *, micro: bool = False) -> LlavaForConditionalGeneration:
    """An untrained LLaVA with the tokenizer's vocabulary; `micro` is the smallest one that runs, for tests."""
    width, layers, inner = (32, 1, 64) if micro else (128, 4, 384)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=2048,
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=min(2, layers),
        num_attention_heads=width // 32,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=width,
    )
    config = LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=int(tokenizer.vocab[IMAGE]),
        image_seq_length=TOKENS_PER_IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():  # else an image token starts ten times as long as a word's embedding
        model.model.multi_modal_projector.linear_2.weight.mul_(PROJECTOR_SCALE)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model
