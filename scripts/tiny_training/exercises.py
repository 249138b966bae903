"""Exercises that come before the tasks: finding a fact among words, saying what one picture shows."""

from benchmarks.mini.pictures import Picture, draw_beside_car, draw_digit, draw_pose, draw_thing
from benchmarks.mini.sample import IMAGE, Question, Request, Sample
from benchmarks.mini.tasks.needles import any_thing, text_needle
from benchmarks.mini.taxonomy import TASKS, MiniTask
from benchmarks.mini.words import ACTIONS, COLOURS, NAMES, SIDES

WORDS, PICTURE = "words", "picture"


def facts(request: Request) -> Sample:
    """Three to eight facts without pictures: badges as in N-1 or colours as in S-1."""
    if request.case % 2 == 0:
        return text_needle(request)
    rng = request.rng
    told = int(rng.integers(3, 9))
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[:told]]
    colours = [list(COLOURS)[int(i)] for i in rng.integers(len(COLOURS), size=told)]
    context = "".join(f" Colour of {name} {colour}." for name, colour in zip(names, colours, strict=True))
    asked = rng.permutation(max(told, request.questions))[: request.questions] % told
    questions = tuple(
        Question(f" What is the colour of {names[i]}?", f" the colour of {names[i]} {colours[i]}", colours[i])
        for i in asked
    )
    return Sample(context, (), questions)


def caption(request: Request) -> Sample:
    """One picture of any kind, and what is there."""
    picture, words = shown(request)
    return Sample(IMAGE, (picture,), (Question(" What is there?", f" there is a {words}", words),))


def shown(request: Request) -> tuple[Picture, str]:
    """A random picture and the words that tell what it shows."""
    rng = request.rng
    colour, shape = any_thing(rng)
    kind = request.case % 4
    if kind == 0:
        digit = int(rng.integers(10))
        return draw_digit(rng, request.pool, digit, colour), f"{colour} number {digit}"
    if kind == 1:
        action = ACTIONS[int(rng.integers(len(ACTIONS)))]
        return draw_pose(rng, action), action
    if kind == 2:
        side = SIDES[int(rng.integers(len(SIDES)))]
        return draw_beside_car(rng, colour, shape, side), f"{colour} {shape} {side}"
    return draw_thing(rng, colour, shape), f"{colour} {shape}"


EXERCISES = {
    WORDS: MiniTask(WORDS, WORDS, "Find the fact.", facts, None, 0, question_type="open-ended"),
    PICTURE: MiniTask(PICTURE, PICTURE, "Look around the car.", caption, None, 1, question_type="open-ended"),
}


def task_or_exercise(name: str) -> MiniTask:
    """By its code."""
    return EXERCISES[name] if name in EXERCISES else next(task for task in TASKS if task.task == name)
