"""What the vision tower learns first: pictures of every kind, and the words that tell what they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from torch.nn import functional

from benchmarks.mini.pictures import (
    SIZE,
    DigitPool,
    Picture,
    digit_pool,
    draw_beside_car,
    draw_digit,
    draw_dots,
    draw_pose,
    draw_scene,
    draw_thing,
)
from benchmarks.mini.seeds import training_rng
from benchmarks.mini.tasks.needles import any_thing
from benchmarks.mini.words import ACTIONS, COLOURS, DIGITS, SHAPES, SIDES

WORDS = (*COLOURS, *SHAPES, *ACTIONS, *SIDES, *DIGITS, "number")
GROUPS = (slice(0, 6), slice(6, 10), slice(10, 15), slice(15, 19), slice(19, 29))  # of words, one is shown of each
DISTANCE, PLACE, SHARPNESS = 0.2, 5.0, 12.0  # of the lesson's loss
KINDS = ("digit", "digit", "digit", "pose", "car", "thing", "thing", "dots", "dots", "scene")  # digits are hardest
_CELLS = 8  # of a handwritten digit's side


@dataclass(frozen=True)
class Seen:
    """A picture, the words for it, and where each coloured disc is: (row, column) in -1 … 1."""

    picture: Picture
    words: tuple[str, ...]
    discs: tuple[tuple[str, float, float], ...] = ()


class WarpedPool(DigitPool):
    """The digits of a split, each time a little turned, shifted and stretched: 1,437 are few to learn from."""

    def draw(self, rng: np.random.Generator, digit: int) -> NDArray[np.float32]:
        """One handwritten `digit` of this split, (8, 8), 0 … 1."""
        angle, stretch, lean = rng.normal(0, 0.12), rng.uniform(0.88, 1.12, 2), rng.normal(0, 0.08)
        turn = np.array([[np.cos(angle), -np.sin(angle) + lean], [np.sin(angle), np.cos(angle)]]) * stretch
        middle = np.full(2, (_CELLS - 1) / 2)
        offset = middle - turn @ middle + rng.uniform(-0.7, 0.7, 2)
        return affine_transform(super().draw(rng, digit), turn, offset, order=1)


@cache
def training_pool() -> WarpedPool:
    """The digits that training may see, warped."""
    pool = digit_pool("train")
    return WarpedPool(pool.split, pool.indices, pool.images)


def draw_seen(rng: np.random.Generator, pool: DigitPool) -> Seen:
    """A random picture of a random kind."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    colour, shape = any_thing(rng)
    if kind == "digit":
        digit = int(rng.integers(10))
        return Seen(draw_digit(rng, pool, digit, colour), (colour, "number", str(digit)))
    if kind == "pose":
        action = ACTIONS[int(rng.integers(len(ACTIONS)))]
        return Seen(draw_pose(rng, action), (action,))
    if kind == "car":
        side = SIDES[int(rng.integers(len(SIDES)))]
        return Seen(draw_beside_car(rng, colour, shape, side), (colour, shape, side))
    if kind == "dots":
        colours = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:2]]
        dots = [(c, int(rng.integers(4, SIZE - 4)), int(rng.integers(4, SIZE - 4))) for c in colours]
        half = SIZE / 2
        discs = tuple((c, (row - half) / half, (column - half) / half) for c, row, column in dots)
        return Seen(draw_dots(rng, dots), tuple(colours), discs)
    draw = draw_thing if kind == "thing" else draw_scene
    return Seen(draw(rng, colour, shape), (colour, shape))


@dataclass(frozen=True)
class Lesson:
    """Pictures with what they show.

    Args:
        pixels: (N, 3, 32, 32) in -1 … 1.
        words: 1 where a picture shows that word of `WORDS`, (N, words).
        places: row and column of the disc of each colour, (N, colours, 2); 0 where there is none.
        discs: whether there is one, (N, colours).
        ids: token of each word, (words,).
    """

    pixels: torch.Tensor
    words: torch.Tensor
    places: torch.Tensor
    discs: torch.Tensor
    ids: torch.Tensor

    def to(self, device: torch.device) -> Lesson:
        """The same on another device."""
        return Lesson(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def loss(self, tokens: torch.Tensor, embeddings: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Every image token shall be the sum of its picture's words and, for each disc, of its place.

        The words' embeddings tell them apart (cross-entropy within each group of words); a place is a position along
        two fixed random directions for each colour. So the decoder reads a picture as it reads words.

        Args:
            tokens: image tokens, (N, T, width).
            embeddings: of the vocabulary, (vocabulary, width), not learnt here.

        Returns:
            The loss, and the share of (image token, group) whose word is right.
        """
        width = embeddings.shape[1]
        meaning, axes = embeddings[self.ids], place_axes(width).to(tokens.device)
        target = self.words @ meaning + torch.einsum("nca,caw->nw", self.places, axes)
        loss = DISTANCE * (tokens - target[:, None]).square().mean()
        found = torch.einsum("ntw,caw->ntca", tokens, axes) / width
        if self.discs.any():
            wrong = (found - self.places[:, None]).square().sum(-1).mean(1)  # (N, colours)
            loss = loss + PLACE * wrong[self.discs].mean()
        logits = tokens @ meaning.T * (SHARPNESS / width)  # (N, T, words)
        right, asked = 0.0, 0
        for group in GROUPS:
            shown = self.words[:, group]
            has = shown.sum(-1) > 0
            if not has.any():
                continue
            shown = shown[has] / shown[has].sum(-1, keepdim=True)
            spoken = logits[has][..., group].transpose(1, 2)  # (n, words of the group, T)
            loss = loss + functional.cross_entropy(spoken, shown[..., None].expand_as(spoken))
            hits = shown.gather(1, spoken.argmax(1)) > 0
            right, asked = right + float(hits.sum()), asked + hits.numel()
        return loss, right / asked


@cache
def place_axes(width: int) -> torch.Tensor:
    """Directions of a row and a column for the disc of each colour, (colours, 2, width)."""
    return torch.randn(len(COLOURS), 2, width, generator=torch.Generator().manual_seed(0))


def lesson_of(seen: list[Seen], encode: Callable[[str], list[int]]) -> Lesson:
    """Tensors of pictures and their words."""
    number, colour = {word: i for i, word in enumerate(WORDS)}, list(COLOURS)
    words, places = torch.zeros(len(seen), len(WORDS)), torch.zeros(len(seen), len(colour), 2)
    discs = torch.zeros(len(seen), len(colour), dtype=torch.bool)
    for row, one in enumerate(seen):
        words[row, [number[word] for word in one.words]] = 1
        for name, *place in one.discs:
            places[row, colour.index(name)] = torch.tensor(place)
            discs[row, colour.index(name)] = True
    ids = torch.tensor([token for word in WORDS for token in encode(f" {word}")])
    pixels = torch.from_numpy(np.stack([one.picture for one in seen])).permute(0, 3, 1, 2).float() / 127.5 - 1
    return Lesson(pixels, words, places, discs, ids)


def draw_lesson(seed: int, step: int, pictures: int, encode: Callable[[str], list[int]]) -> Lesson:
    """The pictures of one step, a pure function of its arguments."""
    rng = training_rng(seed, step)
    return lesson_of([draw_seen(rng, training_pool()) for _ in range(pictures)], encode)
