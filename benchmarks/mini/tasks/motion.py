"""T-1, T-3 and T-4: what happens over the frames of a film: actions, movement, changes of scene."""

from itertools import permutations

import numpy as np

from benchmarks.mini.pictures import SIZE, Picture, draw_dots, draw_pose, draw_scene
from benchmarks.mini.sample import IMAGE, Question, Request, Sample
from benchmarks.mini.words import ACTIONS, COLOURS, DIRECTIONS, SHAPES

PARTS = 3  # actions or scenes in one film


def runs(rng: np.random.Generator, frames: int, parts: int) -> list[int]:
    """For each frame the part it belongs to, in order; every part lasts for two frames or more."""
    cuts = np.sort(rng.permutation(np.arange(1, frames // 2))[: parts - 1]) * 2
    cuts = cuts + rng.integers(0, 2) * (cuts + 1 < frames - 1)
    return [int((frame >= cuts).sum()) for frame in range(frames)]


def action_sequence(request: Request) -> Sample:
    """Somebody does three things, one after the other: which comes first, last, or after another one?"""
    rng = request.rng
    actions = [ACTIONS[i] for i in rng.permutation(len(ACTIONS))[:PARTS]]
    kinds = [request.case // len(ACTIONS) % 4, *(int(k) for k in rng.permutation(4))]
    right = ACTIONS[request.turn(len(ACTIONS), 0)]
    wanted = (0, PARTS - 1, 1, 2)[kinds[0]]  # which of the three the first question asks for
    if right in actions:
        actions[actions.index(right)] = actions[wanted]
    actions[wanted] = right
    questions = []
    for number, kind in enumerate(kinds[: request.questions]):
        when, answer = (
            ("first", actions[0]),
            ("last", actions[-1]),
            (f"after {actions[0]}", actions[1]),
            (f"after {actions[1]}", actions[2]),
        )[kind]
        wrong = [f" {when} comes {action}" for action in ACTIONS if action != answer and action not in when]
        sentence = f" {when} comes {answer}"
        choices = request.options(sentence, wrong, 4, number, kinds=len(ACTIONS))
        questions.append(closed(f" What comes {when}?", sentence, choices))
    pictures = tuple(draw_pose(rng, actions[part]) for part in runs(rng, request.images, PARTS))
    return Sample(IMAGE * request.images, pictures, tuple(questions))


def moving_direction(request: Request) -> Sample:
    """Two discs move across the picture, each its own way; the question asks for one of them.

    The answer says in which quarter of the picture the disc is first and last, and then which way it goes: two frames
    are needed for it, and reading each can be learnt by itself.
    """
    rng = request.rng
    colours = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:2]]
    asked = int(rng.integers(2))
    ways = [DIRECTIONS[int(i)] for i in rng.integers(len(DIRECTIONS), size=2)]
    ways[asked] = DIRECTIONS[request.turn(len(DIRECTIONS), 0)]
    tracks = [track(rng, way, request.images) for way in ways]
    pictures = tuple(
        draw_dots(rng, [(colour, *spots[frame]) for colour, spots in zip(colours, tracks, strict=True)])
        for frame in range(request.images)
    )
    questions = []
    for number, i in enumerate((asked, 1 - asked)[: request.questions]):
        response, *wrong = (f"goes {way}" for way in sorted(DIRECTIONS, key=lambda way: way != ways[i]))
        choices = request.options(response, wrong, 4, number, kinds=len(DIRECTIONS))
        first, last = quarter(tracks[i][0]), quarter(tracks[i][-1])
        sentence = f" {colours[i]} first {first} {colours[i]} last {last} {response}"
        questions.append(Question(f" Which way goes {colours[i]}?", sentence, response, choices))
    return Sample(IMAGE * request.images, pictures, tuple(questions))


def track(rng: np.random.Generator, way: str, frames: int) -> list[tuple[int, int]]:
    """(row, column) of a disc in each frame on its way from one side to the other."""
    start, end = int(rng.integers(4, 9)), int(rng.integers(SIZE - 9, SIZE - 4))
    along = np.linspace(start, end, frames).round().astype(int).tolist()
    if way in ("left", "up"):
        along.reverse()
    across = int(rng.integers(5, 13))  # never on the line between two quarters
    across = SIZE - 1 - across if rng.integers(2) else across
    return [(across, step) if way in ("left", "right") else (step, across) for step in along]


def quarter(spot: tuple[int, int]) -> str:
    """The quarter of the picture in which a (row, column) is."""
    row, column = spot
    return f"{'above' if row < SIZE // 2 else 'below'} {'left' if column < SIZE // 2 else 'right'}"


def scene_transition(request: Request) -> Sample:
    """The film passes through three places of different colours: in which order?"""
    rng = request.rng
    colours = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:PARTS]]
    pictures: tuple[Picture, ...] = tuple(
        draw_scene(rng, colours[part], SHAPES[int(rng.integers(len(SHAPES)))])
        for part in runs(rng, request.images, PARTS)
    )
    sentences = [f" from {a} to {b} to {c}" for a, b, c in permutations(colours)]
    choices = request.options(sentences[0], sentences[1:], 3, 0)
    question = closed(" How do the scenes go?", sentences[0], choices)
    return Sample(IMAGE * request.images, pictures, (question,))


def closed(text: str, sentence: str, choices: tuple[str, ...]) -> Question:
    """A question whose answer is one of `choices`."""
    options = tuple(choice.strip() for choice in choices)
    return Question(text, sentence, sentence.strip(), choices=options)
