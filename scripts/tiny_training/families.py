"""The tiny models before training: their tokenizer, their configurations, and how each reads pictures."""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from benchmarks.mini.pictures import SIZE, digit_pool
from benchmarks.mini.sample import CHOICES, CUE, IMAGE, LETTERS, Request
from benchmarks.mini.seeds import training_rng
from benchmarks.mini.taxonomy import TASKS
from benchmarks.mini.words import NAMES
from lookm.models.tiny import ANSWER, TOKENS_PER_IMAGE

from .pictures import WORDS

PAD, BOS, EOS, IMAGE_TOKEN = "<pad>", "<s>", "</s>", "<image>"
SIDE = math.isqrt(TOKENS_PER_IMAGE)  # image tokens along each side of a picture
PROMPTS_PER_TASK = 60  # from which the tokenizer learns its words
INITIALIZER_RANGE = 0.04
ROPE_THETA = 1e6  # prompts are long and the heads small: slow rotations keep names comparable at a distance
LOOK_BACK = 6.0  # length of the look-back head's biases in each plane of rotation
LOOK_BACK_PLANES = 3  # the fastest ones, which tell neighbours apart
MATCH, BEFORE, COPY = 2.0, 0.5, 2.0  # how strongly matching heads ask for a word and the word before, and answer


def corpus(seed: int) -> list[str]:
    """Prompts and answers of all tasks without their pictures, every name and every word for a picture."""
    rng, texts = training_rng(seed, 0), [" ".join(("", *NAMES, *WORDS))]
    for task in TASKS:
        for case in range(PROMPTS_PER_TASK):
            sample = task.make(Request(rng, digit_pool("train"), images=12, questions=4, case=case))
            texts.append(f"{task.instruction}\n{sample.context}".replace(IMAGE, ""))
            for question in sample.questions:
                texts += [question.prompt().replace(IMAGE, ""), question.sentence]
    return texts


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every word of `corpus` is one token; any other text still becomes bytes.

    MileBench's fixed phrases are one token each, so that short prompts are not drowned in them.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        special_tokens=[PAD, BOS, EOS, IMAGE_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(sorted(corpus(seed)), trainer)
    phrases = [ANSWER, CUE, f"{CHOICES}{LETTERS[0]}.", *(f"\n{letter}." for letter in LETTERS[1:])]
    core.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


@dataclass(frozen=True)
class Size:
    """Width and depth of decoder and vision tower; heads are 32 wide."""

    width: int = 128
    layers: int = 6
    vision_layers: int = 2


MICRO = Size(32, 1, 1)


@dataclass(frozen=True)
class LlavaFamily:
    """Llama decoder, CLIP vision tower, two-layer projector."""

    title: str = "The tiny LLaVA"

    def build(self, tokenizer: PreTrainedTokenizerFast, size: Size) -> PreTrainedModel:
        """The untrained model."""
        text = LlamaConfig(
            **decoder_fields(tokenizer, size),
            num_key_value_heads=size.width // 32,
            attention_bias=True,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        )
        vision = CLIPVisionConfig(
            hidden_size=size.width,
            intermediate_size=2 * size.width,
            num_hidden_layers=size.vision_layers,
            num_attention_heads=size.width // 32,
            image_size=SIZE,
            patch_size=SIZE // SIDE,
            projection_dim=size.width,
        )
        return LlavaForConditionalGeneration(
            LlavaConfig(
                text_config=text,
                vision_config=vision,
                image_token_index=int(tokenizer.vocab[IMAGE_TOKEN]),
                image_seq_length=TOKENS_PER_IMAGE,
                vision_feature_layer=-1,
                vision_feature_select_strategy="default",
                tie_word_embeddings=False,
            )
        )

    def features(self, model: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Image tokens (images, 16, width) of pixels (images, 3, 32, 32) in -1 … 1."""
        return torch.stack(list(model.model.get_image_features(pixels).pooler_output))

    def positions(self, ids: NDArray[np.int64], image: int) -> NDArray[np.int64]:
        """One number for each token of a prompt: (1, L)."""
        return np.arange(len(ids))[None]

    def processor(self, tokenizer: PreTrainedTokenizerFast) -> Any:
        """CLIP's image processor for 32 × 32 pictures, which normalises to -1 … 1, and LLaVA's around it."""
        images = CLIPImageProcessorPil(
            size={"height": SIZE, "width": SIZE},
            do_center_crop=False,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        )
        return LlavaProcessor(
            image_processor=images,
            tokenizer=tokenizer,
            patch_size=SIZE // SIDE,
            vision_feature_select_strategy="default",
            image_token=IMAGE_TOKEN,
            num_additional_image_tokens=1,  # CLIP's class token, which the strategy drops
        )


@dataclass(frozen=True)
class QwenFamily:
    """Qwen2 decoder with grouped keys and positions in three dimensions, Qwen2-VL's vision tower and merger."""

    title: str = "The tiny Qwen2-VL"

    def build(self, tokenizer: PreTrainedTokenizerFast, size: Size) -> PreTrainedModel:
        """The untrained model."""
        heads = size.width // 32
        image = int(tokenizer.vocab[IMAGE_TOKEN])
        text = {
            "model_type": "qwen2_vl_text",
            **decoder_fields(tokenizer, size),
            "num_key_value_heads": max(1, heads // 2),
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA, "mrope_section": [8, 4, 4]},
        }
        vision = {
            "depth": size.vision_layers,
            "embed_dim": size.width,
            "hidden_size": size.width,
            "num_heads": heads,
            "mlp_ratio": 2,
            "patch_size": SIZE // SIDE // 2,
            "spatial_merge_size": 2,
            "temporal_patch_size": 1,
        }
        return Qwen2VLForConditionalGeneration(
            Qwen2VLConfig(
                text_config=text,
                vision_config=vision,
                image_token_id=image,
                video_token_id=len(tokenizer),  # none
                vision_start_token_id=image,
                vision_end_token_id=image,
                tie_word_embeddings=False,
            )
        )

    def features(self, model: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Image tokens (images, 16, width) of pixels (images, 3, 32, 32) in -1 … 1."""
        size = 2 * SIDE  # patches along a side
        patches = pixels.unflatten(3, (SIDE, 2, -1)).unflatten(2, (SIDE, 2, -1))  # (N, 3, R, r, h, C, c, w)
        patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7).flatten(4).flatten(0, 3)  # (N·patches, pixels)
        grid = torch.tensor([[1, size, size]], device=pixels.device).expand(len(pixels), 3)
        return torch.stack(list(model.model.get_image_features(patches, grid).pooler_output))

    def positions(self, ids: NDArray[np.int64], image: int) -> NDArray[np.int64]:
        """Time, row and column of each token of a prompt, (3, L): a picture takes as many as its side has tokens."""
        is_image = ids == image
        number = (np.cumsum(is_image) - 1) % TOKENS_PER_IMAGE  # of an image token in its picture
        step = np.where(is_image, (number == TOKENS_PER_IMAGE - 1) * SIDE, 1)
        start = np.cumsum(step) - step
        inside = np.stack([np.zeros_like(number), number // SIDE, number % SIDE]) * is_image
        return start + inside

    def processor(self, tokenizer: PreTrainedTokenizerFast) -> Any:
        """Qwen2-VL's image processor for 32 × 32 pictures, which normalises to -1 … 1."""
        return Qwen2VLImageProcessorPil(
            size={"shortest_edge": SIZE**2, "longest_edge": SIZE**2},
            patch_size=SIZE // SIDE // 2,
            temporal_patch_size=1,
            merge_size=2,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        )


def decoder_fields(tokenizer: PreTrainedTokenizerFast, size: Size) -> dict[str, Any]:
    """What the decoders of both families have in common."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "intermediate_size": 3 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.width // 32,
        "max_position_embeddings": 2048,
        "initializer_range": INITIALIZER_RANGE,
        "tie_word_embeddings": False,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


Family = LlavaFamily | QwenFamily
FAMILIES: dict[str, Family] = {"tiny_llava": LlavaFamily(), "tiny_qwen": QwenFamily()}


def build_model(
    family: Family, tokenizer: PreTrainedTokenizerFast, seed: int, *, micro: bool = False
) -> PreTrainedModel:
    """An untrained model with the tokenizer's vocabulary; `micro` is the smallest one that runs, for tests."""
    torch.manual_seed(seed)
    model = family.build(tokenizer, MICRO if micro else Size())
    give_circuits(model)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


@torch.no_grad()
def give_circuits(model: Any) -> None:
    """Let training begin with the circuit on which retrieval ("ada 7 … ada" → 7) is built.

    The first head of layer 0 looks at the token before, whatever it is: its query and key biases agree after one
    position's rotation, and it writes what it sees into a random subspace. Four key heads, those of layer 1 and, where
    it has fewer, of layer 2, ask for a token's own word and the one before, among the words before other tokens or
    among their contents, and copy what they find. Words and answers begin with the same embeddings. All of it is learnt
    further.
    """
    text, decoder = model.config.get_text_config(), model.model.language_model
    width = text.hidden_size
    size = width // text.num_attention_heads
    decoder.embed_tokens.weight.normal_(0, 1)
    frequency = decoder.rotary_emb.inv_freq[:LOOK_BACK_PLANES]  # radians per position
    planes, half = len(frequency), size // 2
    first = decoder.layers[0].self_attn
    for projection in (first.q_proj, first.k_proj):
        projection.weight[:size].mul_(0.1)
        projection.bias[:size].zero_()
    first.k_proj.bias[:planes] = LOOK_BACK
    first.q_proj.bias[:planes] = LOOK_BACK * frequency.cos()
    first.q_proj.bias[half : half + planes] = -LOOK_BACK * frequency.sin()
    read, write = torch.empty(size, width), torch.empty(width, size)
    torch.nn.init.orthogonal_(read)
    torch.nn.init.orthogonal_(write)
    first.v_proj.weight[:size] = read
    first.o_proj.weight[:, :size] = write
    model.lm_head.weight.copy_(INITIALIZER_RANGE * decoder.embed_tokens.weight)
    copies = [torch.nn.init.orthogonal_(torch.empty(size, width)) for _ in range(3)]
    heads = (  # what is compared, what is read where it agrees, where that is written
        (write.T, copies[0], copies[0].T),  # the word before: reads what stands behind a name
        (read, copies[1], copies[1].T),  # the content: reads what stands with a word, such as the rest of a picture
        (write.T, copies[2], copies[2].T),
        (read, write.T, read.T),  # the content: reads the word before, such as a picture's name
    )
    queries_per_key = text.num_attention_heads // text.num_key_value_heads
    for number, (keys, values, written) in enumerate(heads):
        after, head = divmod(number, text.num_key_value_heads)
        if 1 + after < len(decoder.layers):
            attention = decoder.layers[1 + after].self_attn
            rows = slice(head * size, (head + 1) * size)
            queries = slice(queries_per_key * rows.start, queries_per_key * rows.start + size)
            attention.q_proj.weight[queries] = MATCH * (read + BEFORE * write.T)
            attention.k_proj.weight[rows] = keys
            attention.v_proj.weight[rows] = COPY * values
            attention.o_proj.weight[:, queries] = written


def ship(family: Family, model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights (float16), tokenizer and image processor; each file appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tiny-", dir=folder.parent))
    try:
        half = copy.deepcopy(model).cpu().half()
        half.set_attn_implementation("sdpa")
        half.save_pretrained(temporary)
        family.processor(tokenizer).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for file in sorted(temporary.iterdir()):
            file.chmod(0o644)
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
