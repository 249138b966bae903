"""N-1 and N-2: one fact among many pictures, told in words or written in a picture."""

import numpy as np

from benchmarks.mini.pictures import draw_digit, draw_thing
from benchmarks.mini.sample import IMAGE, Question, Request, Sample
from benchmarks.mini.words import COLOURS, DIGITS, NAMES, SHAPES


def any_thing(rng: np.random.Generator) -> tuple[str, str]:
    """A random (colour, shape)."""
    return list(COLOURS)[int(rng.integers(len(COLOURS)))], SHAPES[int(rng.integers(len(SHAPES)))]


def text_needle(request: Request) -> Sample:
    """Badges told between pictures of things that do not matter; the question asks for one of them.

    Without pictures the facts alone are left (3–8 of them), from which retrieval is learnt first.
    """
    rng, images = request.rng, request.images
    facts = int(rng.integers(2, 3 + images // 10)) if images else int(rng.integers(3, 9))
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[:facts]]
    asked = rng.permutation(max(facts, request.questions))[: request.questions] % facts
    digits = [DIGITS[int(d)] for d in rng.integers(10, size=facts)]
    digits[asked[0]] = DIGITS[request.turn(10, 0)]
    after = np.sort(rng.integers(images + 1, size=facts))
    pieces = []
    for place in range(images + 1):
        told = [f" The badge of {names[i]} {digits[i]}." for i in range(facts) if after[i] == place]
        pieces.append("".join(told) + (IMAGE if place < images else ""))
    questions = []
    for i in asked:
        text = f" What is the badge of {names[i]}?"
        questions.append(Question(text, f" the badge of {names[i]} {digits[i]}", digits[i]))
    pictures = tuple(draw_thing(rng, *any_thing(rng)) for _ in range(images))
    return Sample("".join(pieces), pictures, tuple(questions))


def image_needle(request: Request) -> Sample:
    """Handwritten numbers of different colours hide among things; the question asks for one of them by its colour."""
    rng, images = request.rng, request.images
    hidden = min(images, int(rng.integers(2, 5)))
    colours = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:hidden]]
    digits = [int(d) for d in rng.integers(10, size=hidden)]
    asked = rng.permutation(max(hidden, request.questions))[: request.questions] % hidden
    digits[asked[0]] = request.turn(10, 0)
    pictures = [draw_thing(rng, *any_thing(rng)) for _ in range(images)]
    for colour, digit, place in zip(colours, digits, rng.permutation(images)[:hidden], strict=True):
        pictures[place] = draw_digit(rng, request.pool, digit, colour)
    questions = tuple(
        Question(f" What is the {colours[i]} number?", f" the {colours[i]} number {digits[i]}", str(digits[i]))
        for i in asked
    )
    return Sample(IMAGE * images, tuple(pictures), questions)
