"""What all backbones share: prompts with `<ImageHere>` and images → model inputs; generated tokens → answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from lookm.errors import LookmError

IMAGE_HERE = "<ImageHere>"


def separated(prompt: str) -> str:
    """The prompt with a line break after each of two neighbouring images, as MileBench's workers write it."""
    return prompt.replace(IMAGE_HERE * 2, f"{IMAGE_HERE}\n{IMAGE_HERE}\n")


def prompt_ids(
    text: str, encode: Callable[[str], list[int]], image_token_id: int, n_tokens_per_image: int
) -> list[int]:
    """Token ids of a text whose every `<ImageHere>` becomes `n_tokens_per_image` image tokens.

    The pieces between the images are encoded one by one; `encode` adds no special tokens.
    """
    pieces = text.split(IMAGE_HERE)
    ids = list(encode(pieces[0])) if pieces[0] else []
    for piece in pieces[1:]:
        ids += [image_token_id] * n_tokens_per_image
        ids += encode(piece) if piece else []
    return ids


@dataclass(frozen=True)
class Backbone:
    """A vision-language model with all that is needed to ask it.

    Args:
        name: short name, as in the configuration.
        model: in evaluation mode, on its device.
        tokenizer: its tokenizer; a padding, a beginning and an end token are set.
        image_processor: turns RGB images into `pixel_values`.
        template: conversation template; `{question}` stands for the prompt.
        n_tokens_per_image: image tokens that each `<ImageHere>` becomes.
        max_context_len: tokens a prompt may have, template not counted.
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts per `generate` call.
        label: what tables call the model.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    image_processor: BaseImageProcessor
    template: str
    n_tokens_per_image: int
    max_context_len: int
    max_new_tokens: int
    batch_size: int
    label: str

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prompt_tokens(self, prompt: str) -> list[int]:
        """Token ids of one prompt in the conversation template: BOS once, image tokens in place."""
        text = separated(self.template.replace("{question}", prompt))
        ids = prompt_ids(text, self.encode, self.model.config.image_token_id, self.n_tokens_per_image)
        return [self.tokenizer.bos_token_id, *ids]

    def inputs(self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> dict[str, torch.Tensor]:
        """Left-padded inputs of a batch, on the model's device.

        Args:
            prompts: B texts with one `<ImageHere>` for each image.
            images: for each prompt its images, in order.

        Returns:
            `input_ids` and `attention_mask` (B, L), int64; `pixel_values` (all images, 3, S, S) in the model's
            dtype, absent when there is no image.

        Raises:
            LookmError: a prompt has not as many placeholders as images.
        """
        for row, (prompt, pictures) in enumerate(zip(prompts, images, strict=True)):
            if prompt.count(IMAGE_HERE) != len(pictures):
                raise LookmError(
                    f"prompt {row} has {prompt.count(IMAGE_HERE)} times {IMAGE_HERE} and {len(pictures)} images; "
                    "give one image for each"
                )
        rows = [self.prompt_tokens(prompt) for prompt in prompts]
        length = max(len(row) for row in rows)
        ids = torch.full((len(rows), length), int(self.tokenizer.pad_token_id))
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, length - len(tokens) :] = torch.tensor(tokens)
            mask[row, length - len(tokens) :] = 1
        batch = {"input_ids": ids, "attention_mask": mask}
        pictures = [image.convert("RGB") for row in images for image in row]
        if pictures:
            batch["pixel_values"] = self.pixels(pictures).to(self.model.dtype)
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}

    def pixels(self, pictures: list[Image.Image]) -> torch.Tensor:
        """The processed images, (N, 3, S, S), float32."""
        return self.image_processor(pictures, return_tensors="pt")["pixel_values"]

    def answers(self, tokens: torch.Tensor) -> list[str]:
        """Texts of generated tokens (B, T) without the prompt; special tokens are dropped."""
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.strip() for text in texts]
