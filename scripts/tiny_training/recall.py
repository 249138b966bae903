"""Dense exercises in retrieval: many facts or pictures, then names or looks again, each to be followed by its own."""

from collections.abc import Callable

import numpy as np

from benchmarks.mini.pictures import Picture, digit_pool, draw_beside_car, draw_digit, draw_thing
from benchmarks.mini.sample import Request
from benchmarks.mini.tasks.needles import any_thing
from benchmarks.mini.tasks.objects import THINGS
from benchmarks.mini.words import COLOURS, DIGITS, NAMES, SIDES
from lookm.models.tiny import ANSWER

from .architecture import TOKENS_PER_IMAGE
from .examples import IGNORED, Example, Vocabulary
from .exercises import shown

RECITE, ALBUM, FIND, MATCH = "recite", "album", "find", "match"
MOST_FACTS = 8
MOST_PICTURES = 12
RECITED = 20
MATCHED = 8


def recite(rng: np.random.Generator, images: int, vocabulary: Vocabulary) -> Example:
    """Up to eight badges or colours, then twenty names of them, each with its value; no pictures."""
    names = draw_names(rng, int(rng.integers(2, MOST_FACTS + 1)))
    badges = rng.random() < 0.6
    values = list(DIGITS if badges else COLOURS)
    told = [f" {values[int(rng.integers(len(values)))]}" for _ in names]
    fact = "The badge" if badges else "Colour"
    facts = [f" {fact} of{name}{value}." for name, value in zip(names, told, strict=True)]
    ids = [vocabulary.bos]
    for text in ("Find the fact.\n", *facts):
        ids += vocabulary.encode(text)
    return recalled(rng, ids, list(zip(names, told, strict=True)), (), RECITED, vocabulary)


def album(rng: np.random.Generator, images: int, vocabulary: Vocabulary) -> Example:
    """Up to `images` named pictures of any kind, then their names, each with the words that tell what it shows."""
    names = draw_names(rng, int(rng.integers(1, max(1, min(images, MOST_PICTURES)) + 1)))
    ids, pictures, words = [vocabulary.bos, *vocabulary.encode("Read the slides.\n")], [], []
    for name in names:
        picture, text = shown(Request(rng, digit_pool("train"), images=1, case=int(rng.integers(1 << 20))))
        ids += [*vocabulary.encode(name), *[vocabulary.image] * TOKENS_PER_IMAGE]
        pictures.append(picture)
        words.append(f" {text}")
    times = max(8, min(16, 2 * len(names)))
    return recalled(rng, ids, list(zip(names, words, strict=True)), tuple(pictures), times, vocabulary)


def find(rng: np.random.Generator, images: int, vocabulary: Vocabulary) -> Example:
    """Coloured numbers and things beside cars, then what is to be found, each with its number or its side."""
    pairs: dict[str, str] = {}
    pictures: list[Picture] = []
    for _ in range(int(rng.integers(2, max(2, min(images, MOST_PICTURES)) + 1))):
        colour, shape = any_thing(rng)
        if rng.random() < 0.5:
            digit = int(rng.integers(10))
            sought, told = f" {colour} number", f" {digit}"
            picture = draw_digit(rng, digit_pool("train"), digit, colour)
        else:
            side = SIDES[int(rng.integers(len(SIDES)))]
            sought, told = f" {colour} {shape}", f" {side}"
            picture = draw_beside_car(rng, colour, shape, side)
        if sought not in pairs:
            pairs[sought] = told
            pictures.append(picture)
    ids = [vocabulary.bos, *vocabulary.encode("Find the number.\n")]
    ids += [vocabulary.image] * (TOKENS_PER_IMAGE * len(pictures))
    times = max(8, min(16, 2 * len(pictures)))
    return recalled(rng, ids, list(pairs.items()), tuple(pictures), times, vocabulary)


def match(rng: np.random.Generator, images: int, vocabulary: Vocabulary) -> Example:
    """Named pictures of different things, then eight others of the same things, each with the name it belongs to."""
    count = int(rng.integers(2, max(2, min(images, MOST_PICTURES)) + 1))
    names = [vocabulary.encode(name) for name in draw_names(rng, count)]
    things = [THINGS[i] for i in rng.permutation(len(THINGS))[:count]]
    picture = [vocabulary.image] * TOKENS_PER_IMAGE
    ids = [vocabulary.bos, *vocabulary.encode("Find the match.\n")]
    for name in names:
        ids += name + picture
    pictures = [draw_thing(rng, *thing) for thing in things]
    ids += vocabulary.encode(ANSWER)
    targets = [IGNORED] * len(ids)
    for _ in range(MATCHED):
        i = int(rng.integers(count))
        pictures.append(draw_thing(rng, *things[i]))
        ids += picture + names[i]
        targets += [IGNORED] * (len(picture) - 1) + names[i] + [IGNORED]
    return Example(np.array(ids), np.array(targets), tuple(pictures))


def draw_names(rng: np.random.Generator, count: int) -> list[str]:
    """Different names, each with the space before it."""
    return [f" {NAMES[i]}" for i in rng.permutation(len(NAMES))[:count]]


def recalled(
    rng: np.random.Generator,
    ids: list[int],
    pairs: list[tuple[str, str]],
    pictures: tuple[Picture, ...],
    times: int,
    vocabulary: Vocabulary,
) -> Example:
    """The prompt `ids`, then `times` pairs in random order; only the second parts of the pairs are learnt."""
    order: list[int] = []
    while len(order) < times:
        order += [int(i) for i in rng.permutation(len(pairs))]
    ids = [*ids, *vocabulary.encode(ANSWER)]
    targets = [IGNORED] * len(ids)
    for i in order[:times]:
        name, value = (vocabulary.encode(text) for text in pairs[i])
        ids += name + value
        targets += [IGNORED] * (len(name) - 1) + value + [IGNORED]
    return Example(np.array(ids), np.array(targets), pictures)


RECALLS: dict[str, Callable[[np.random.Generator, int, Vocabulary], Example]] = {
    RECITE: recite,
    ALBUM: album,
    FIND: find,
    MATCH: match,
}
