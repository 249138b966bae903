"""Draws the pictures of MileBench-mini: 32 × 32 × 3 arrays of uint8, each a pure function of its arguments."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.mini.words import COLOURS

SIZE = 32
Picture = NDArray[np.uint8]  # (32, 32, 3)
Mask = NDArray[np.bool_]  # (32, 32)
Split = Literal["train", "eval"]

_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE]
_HELD_OUT = 5  # every fifth handwritten digit belongs to the evaluation

_POSES: dict[str, tuple[str, ...]] = {  # 12 × 12 cells, drawn twice as large
    "jump": (
        "#....##....#",
        ".#...##...#.",
        "..#..##..#..",
        "...######...",
        ".....##.....",
        ".....##.....",
        "....####....",
        "..##....##..",
        "##........##",
        "............",
        "............",
        "............",
    ),
    "sit": (
        "............",
        "............",
        "..##........",
        "..##........",
        "..##........",
        "..####......",
        "..##........",
        "..########..",
        "..########..",
        "........##..",
        "........##..",
        "........##..",
    ),
    "wave": (
        ".....##...##",
        ".....##..##.",
        ".....##.##..",
        "....#####...",
        "...####.....",
        "..##.##.....",
        ".....##.....",
        "....####....",
        "....#..#....",
        "....#..#....",
        "....#..#....",
        "....#..#....",
    ),
    "sleep": (
        "............",
        "............",
        "............",
        "............",
        "............",
        "............",
        "............",
        "............",
        "##..........",
        "############",
        "############",
        "............",
    ),
    "run": (
        ".......##...",
        ".......##...",
        "..#####.....",
        ".#...###..#.",
        ".....##.##..",
        "....##......",
        "....####....",
        "...##..##...",
        "###.....##..",
        "#........##.",
        "............",
        "............",
    ),
}


@dataclass(frozen=True)
class DigitPool:
    """Handwritten digits of one split of scikit-learn's `load_digits`; the two splits share no image."""

    split: Split
    indices: tuple[tuple[int, ...], ...]  # [digit] → rows of the data set
    images: NDArray[np.float32]  # (1797, 8, 8), 0 … 1

    def draw(self, rng: np.random.Generator, digit: int) -> NDArray[np.float32]:
        """One handwritten `digit` of this split, (8, 8), 0 … 1."""
        rows = self.indices[digit]
        return self.images[rows[int(rng.integers(len(rows)))]]


@cache
def digit_pool(split: Split) -> DigitPool:
    """The digits with an index divisible by five for `eval`, all others for `train`."""
    from sklearn.datasets import load_digits  # it takes seconds to import

    data = load_digits()
    held_out = np.arange(len(data.target)) % _HELD_OUT == 0
    chosen = held_out if split == "eval" else ~held_out
    indices = tuple(tuple(int(i) for i in np.flatnonzero(chosen & (data.target == d))) for d in range(10))
    return DigitPool(split=split, indices=indices, images=(data.images / 16.0).astype(np.float32))


@cache
def shape_mask(shape: str, row: int, column: int, radius: int) -> Mask:
    """Where a shape of `radius` pixels around (row, column) covers the picture."""
    dy, dx = _ROWS - row, _COLUMNS - column
    if shape == "circle":
        mask = dy**2 + dx**2 <= radius**2
    elif shape == "square":
        side = 0.85 * radius
        mask = (abs(dy) <= side) & (abs(dx) <= side)
    elif shape == "triangle":
        mask = (abs(dy) <= radius) & (abs(dx) <= (dy + radius) / 2)
    elif shape == "cross":
        arm = max(1.0, radius / 3.5)
        mask = (abs(dy) <= radius) & (abs(dx) <= radius) & ((abs(dy) <= arm) | (abs(dx) <= arm))
    else:
        raise ValueError(f"no shape is called {shape!r}")
    mask.setflags(write=False)
    return mask


def ground(rng: np.random.Generator) -> Picture:
    """A dark noisy background."""
    return rng.integers(0, 40, (SIZE, SIZE, 3), dtype=np.uint8)


def tint(rng: np.random.Generator, colour: str) -> NDArray[np.uint8]:
    """The colour's RGB value, a little different each time, (3,)."""
    return np.clip(np.array(COLOURS[colour]) + rng.integers(-15, 16, 3), 0, 255).astype(np.uint8)


def draw_thing(rng: np.random.Generator, colour: str, shape: str) -> Picture:
    """One large coloured shape, anywhere in the picture."""
    radius = int(rng.integers(8, 11))
    row, column = (int(v) for v in rng.integers(radius, SIZE - radius, 2))
    picture = ground(rng)
    picture[shape_mask(shape, row, column, radius)] = tint(rng, colour)
    return picture


def draw_digit(rng: np.random.Generator, pool: DigitPool, digit: int, colour: str = "white") -> Picture:
    """A handwritten digit over the whole picture, four by four pixels for each of its own."""
    ink = np.kron(pool.draw(rng, digit), np.ones((4, 4), dtype=np.float32))[:, :, None]  # (32, 32, 1)
    return (ground(rng) * (1 - ink) + tint(rng, colour) * ink).astype(np.uint8)


def draw_pose(rng: np.random.Generator, action: str) -> Picture:
    """A stick figure that does `action`, somewhere in the picture."""
    cells = np.array([[cell == "#" for cell in line] for line in _POSES[action]])
    row, column = (int(v) for v in rng.integers(0, SIZE - 24 + 1, 2))
    picture = ground(rng)
    picture[row : row + 24, column : column + 24][np.kron(cells, np.ones((2, 2), dtype=bool))] = tint(rng, "white")
    return picture


def draw_dots(rng: np.random.Generator, dots: list[tuple[str, int, int]]) -> Picture:
    """Small discs at (colour, row, column)."""
    picture = ground(rng)
    for colour, row, column in dots:
        picture[shape_mask("circle", row, column, 4)] = tint(rng, colour)
    return picture


def draw_scene(rng: np.random.Generator, colour: str, shape: str) -> Picture:
    """A place painted in one colour, with a dark shape as its furniture."""
    noise = rng.integers(-20, 21, (SIZE, SIZE, 3))
    picture = np.clip(tint(rng, colour).astype(np.int64) + noise, 0, 255).astype(np.uint8)
    radius = int(rng.integers(5, 8))
    row, column = (int(v) for v in rng.integers(radius, SIZE - radius, 2))
    picture[shape_mask(shape, row, column, radius)] = (25, 25, 25)
    return picture


def draw_beside_car(rng: np.random.Generator, colour: str, shape: str, side: str) -> Picture:
    """A small coloured shape on one side of a grey car in the middle."""
    picture = ground(rng)
    row, column = 16 + int(rng.integers(-1, 2)), 16 + int(rng.integers(-1, 2))
    picture[row - 3 : row + 3, column - 5 : column + 5] = (130, 130, 130)
    picture[row + 2 : row + 4, column - 4 : column - 2] = (90, 90, 90)
    picture[row + 2 : row + 4, column + 2 : column + 4] = (90, 90, 90)
    along = 16 + int(rng.integers(-5, 6))
    place = {"left": (along, 5), "right": (along, 26), "above": (5, along), "below": (26, along)}[side]
    picture[shape_mask(shape, *place, 5)] = tint(rng, colour)
    return picture
