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
INITIALIZER_RANGE = 0.04
ROPE_THETA = 1e6  # prompts are long and the heads small: slow rotations keep names comparable at a distance
LOOK_BACK = 6.0  # length of the look-back head's biases in each plane of rotation
LOOK_BACK_PLANES = 3  # the fastest ones, which tell neighbours apart
MATCHING_HEADS = 2


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


@torch.no_grad()
def look_back(model: LlavaForConditionalGeneration) -> None:
    """Let training begin with the circuit on which retrieval ("ada 7 … ada" → 7) is built.

    The first head of layer 0 looks at the token before, whatever it is: its query and key biases agree after one
    position's rotation. It writes what it sees into a random subspace, and the first heads of layer 1, where there is
    such a layer, compare tokens with that subspace. All of it is learnt further. Left to itself, training was still
    without any such head after an hour.
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
    for layer in decoder.layers[1:2]:
        for head in range(min(MATCHING_HEADS, text.num_attention_heads)):
            rows = slice(head * size, (head + 1) * size)
            layer.self_attn.q_proj.weight[rows] = read
            layer.self_attn.k_proj.weight[rows] = write.T


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
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
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
    look_back(model)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model
