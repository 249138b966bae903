"""What all backbones share: prompts with `<ImageHere>` and images → model inputs; generated tokens → answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from PIL import Image
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from lookm.errors import LookmError, check_whole_number
from lookm.prompt import image_token_ids
from lookm.questions import Questions, common_tokens

IMAGE_HERE = "<ImageHere>"


def separated(prompt: str) -> str:
    """The prompt with a line break after each of two neighbouring images, as MileBench's workers write it."""
    return prompt.replace(IMAGE_HERE * 2, f"{IMAGE_HERE}\n{IMAGE_HERE}\n")


def prompt_ids(
    text: str, encode: Callable[[str], list[int]], image_token_id: int, n_image_tokens: int | Sequence[int]
) -> list[int]:
    """Token ids of a text whose every `<ImageHere>` becomes image tokens.

    The pieces between the images are encoded one by one; `encode` adds no special tokens.

    Args:
        n_image_tokens: how many of them an image becomes, or a number for each image.
    """
    pieces = text.split(IMAGE_HERE)
    n_images = len(pieces) - 1
    counts = [n_image_tokens] * n_images if isinstance(n_image_tokens, int) else n_image_tokens
    ids = list(encode(pieces[0])) if pieces[0] else []
    for piece, count in zip(pieces[1:], counts, strict=True):
        ids += [image_token_id] * count
        ids += encode(piece) if piece else []
    return ids


def padded_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """The image in the middle of a square of that colour, as LLaVA pads it (odd rests go below and to the right)."""
    if image.width == image.height:
        return image
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


@dataclass(frozen=True)
class ImageShape:
    """What one image is to a model.

    Attributes:
        tokens: of the prompt, at most; those that mark its beginning and end are not counted.
        patches: that the vision tower reads, CLS counted.
    """

    tokens: int
    patches: int


@dataclass(frozen=True)
class EncodedImages:
    """Images as the model reads them.

    Attributes:
        tensors: keyword arguments of the model, such as `pixel_values`.
        n_tokens: image tokens of each image.
    """

    tensors: dict[str, torch.Tensor]
    n_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Backbone:
    """A vision-language model with all that is needed to ask it.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: its tokenizer; a padding, a beginning and an end token are set.
        template: conversation template; `{question}` stands for the prompt.
        n_tokens_per_image: tokens that each `<ImageHere>` becomes at most, those of `around_image` included.
        max_context_len: tokens a prompt may have, template not counted.
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts per `generate` call.
        background: images are padded to squares of this colour; None leaves their shape to the image processor.
        around_image: texts before and after each image, special tokens of the tokenizer.

    Raises:
        LookmError: a batch, a prompt or an answer of less than one.
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
    background: tuple[int, int, int] | None = None
    around_image: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_context_len", "max_new_tokens"):
            check_whole_number(f"model.{name}", getattr(self, name), 1)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ends = self.model.generation_config.eos_token_id
        return frozenset() if ends is None else frozenset(ends if isinstance(ends, list) else [ends])

    def prompt_tokens(self, prompt: str, n_image_tokens: Sequence[int] | None = None) -> list[int]:
        """Token ids of one prompt in the conversation template: BOS once (if the model has one), images in place.

        Args:
            prompt: with one `<ImageHere>` for each image.
            n_image_tokens: image tokens of each image; None takes the most that an image can have.
        """
        text = separated(self.template.replace("{question}", self.without_image_tokens(prompt)))
        before, after = self.around_image
        text = text.replace(IMAGE_HERE, f"{before}{IMAGE_HERE}{after}")
        counts = self.most_image_tokens if n_image_tokens is None else n_image_tokens
        ids = prompt_ids(text, self.encode, self.model.config.image_token_id, counts)
        first = self.tokenizer.bos_token_id
        return ids if first is None else [first, *ids]

    @property
    def most_image_tokens(self) -> int:
        """The most image tokens that one image can have, those of `around_image` not counted."""
        return self.n_tokens_per_image - sum(len(self.encode(text)) for text in self.around_image if text)

    def without_image_tokens(self, prompt: str) -> str:
        """The prompt with a space inside of what the tokenizer would read as an image."""
        for token in self.tokenizer.convert_ids_to_tokens(list(image_token_ids(self.model.config))):
            if token and token in prompt:
                prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
        return prompt

    def inputs(self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> dict[str, torch.Tensor]:
        """Left-padded inputs of a batch, on the model's device.

        Args:
            prompts: B texts with one `<ImageHere>` for each image.
            images: for each prompt its images, in order.

        Returns:
            `input_ids` and `attention_mask` (B, L), int64, and what `encode_images` returns, floats in the model's
            dtype, absent when there is no image: for most models `pixel_values` (all images, 3, S, S).

        Raises:
            LookmError: a prompt has not as many placeholders as images.
        """
        for row, (prompt, pictures) in enumerate(zip(prompts, images, strict=True)):
            if prompt.count(IMAGE_HERE) != len(pictures):
                raise LookmError(
                    f"prompt {row} has {prompt.count(IMAGE_HERE)} times {IMAGE_HERE} and {len(pictures)} images; "
                    "give one image for each"
                )
        encoded, counts = self._encoded(images)
        rows = [self.prompt_tokens(prompt, of_row) for prompt, of_row in zip(prompts, counts, strict=True)]
        return self.batch(rows, encoded)

    def _encoded(self, images: Sequence[Sequence[Image.Image]]) -> tuple[EncodedImages, list[list[int]]]:
        """The images of all prompts, and for each prompt the tokens of each of its images."""
        flat = [image.convert("RGB") for row in images for image in row]
        encoded = self.encode_images(flat) if flat else EncodedImages({}, ())
        counts = iter(encoded.n_tokens)
        return encoded, [list(islice(counts, len(row))) for row in images]

    def batch(self, rows: list[list[int]], encoded: EncodedImages) -> dict[str, torch.Tensor]:
        """Rows of token ids and their images as the model's inputs, on its device."""
        batch = self._padded(rows)
        for name, tensor in encoded.tensors.items():
            batch[name] = tensor.to(self.model.dtype) if tensor.is_floating_point() else tensor
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}

    def inputs_before_questions(
        self, contexts: Sequence[str], images: Sequence[Sequence[Image.Image]], prompts: Sequence[tuple[int, str]]
    ) -> tuple[dict[str, torch.Tensor], Questions]:
        """Inputs of contexts alone, and the questions that follow them, token by token as in the whole prompts.

        Args:
            contexts: B beginnings of prompts, with one `<ImageHere>` for each image.
            prompts: N whole prompts, each with the row of its context; no images follow.

        Returns:
            Inputs as of `inputs`, and N questions, the end of the conversation template in each.
        """
        encoded, counts = self._encoded(images)
        rows, questions = [], [[0]] * len(prompts)
        for row, (context, of_row) in enumerate(zip(contexts, counts, strict=True)):
            alone = self.prompt_tokens(context, of_row)
            whole = {n: self.prompt_tokens(prompt, of_row) for n, (of, prompt) in enumerate(prompts) if of == row}
            length = min(common_tokens(alone, ids) for ids in whole.values())  # no token of a question is in it
            rows.append(alone[:length])
            for n, ids in whole.items():
                questions[n] = ids[length:]
        pad, device = int(self.tokenizer.pad_token_id), self.model.device
        return self.batch(rows, encoded), Questions.padded(questions, [row for row, _ in prompts], pad, device)

    def question_tokens(self, context: str, prompt: str, images: Sequence[Image.Image]) -> int:
        """How many of a prompt's last tokens come after its context; images may be among them."""
        _, (counts,) = self._encoded([images])
        alone = self.prompt_tokens(context, counts[: context.count(IMAGE_HERE)])
        whole = self.prompt_tokens(prompt, counts)
        return len(whole) - common_tokens(alone, whole)

    def _padded(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` (B, L) of rows of token ids, padded on the left."""
        length = max(len(row) for row in rows)
        ids = torch.full((len(rows), length), int(self.tokenizer.pad_token_id))
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, length - len(tokens) :] = torch.tensor(tokens)
            mask[row, length - len(tokens) :] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def encode_images(self, pictures: list[Image.Image]) -> EncodedImages:
        """RGB images as the model's arguments, and the number of tokens of each."""
        return EncodedImages({"pixel_values": self.pixels(pictures)}, (self.most_image_tokens,) * len(pictures))

    def pixels(self, pictures: list[Image.Image]) -> torch.Tensor:
        """The processed RGB images, (N, 3, S, S), float32."""
        if self.background is not None:
            pictures = [padded_to_square(picture, self.background) for picture in pictures]
        return self.image_processor(pictures, return_tensors="pt")["pixel_values"]

    def answers(self, tokens: torch.Tensor) -> list[str]:
        """Texts of generated tokens (B, T) without the prompt; special tokens are dropped."""
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.strip() for text in texts]
