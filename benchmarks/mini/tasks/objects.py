"""T-2, S-3 and S-5: things in the pictures: whether one is there, what changed, where it is."""

from benchmarks.mini.pictures import draw_beside_car, draw_thing
from benchmarks.mini.sample import IMAGE, Question, Request, Sample
from benchmarks.mini.tasks.motion import closed, runs
from benchmarks.mini.tasks.needles import any_thing
from benchmarks.mini.words import COLOURS, SHAPES, SIDES

THINGS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)


def object_existence(request: Request) -> Sample:
    """Is such a thing in any picture? Half of the questions ask for one that is not."""
    rng = request.rng
    order = [THINGS[i] for i in rng.permutation(len(THINGS))]
    half = len(order) // 2
    shown, absent = order[:half], order[half:]
    present = [shown[int(i)] for i in rng.integers(half, size=request.images)]
    pictures = tuple(draw_thing(rng, *thing) for thing in present)
    questions = []
    for number in range(request.questions):
        there = request.turn(2, number) == 0
        colour, shape = present[int(rng.integers(len(present)))] if there else absent[int(rng.integers(half))]
        sentences = [f" there is {some} {colour} {shape}" for some in ("a", "no")]
        right, wrong = sentences if there else sentences[::-1]
        choices = request.options(right, [wrong], 2, number, kinds=2)
        questions.append(closed(f" Is there a {colour} {shape}?", right, choices))
    return Sample(IMAGE * request.images, pictures, tuple(questions))


def spot_the_difference(request: Request) -> Sample:
    """The same thing in every picture, until its colour or its shape changes: say what turned into what."""
    rng = request.rng
    before = any_thing(rng)
    if request.turn(2, 0) == 0:
        others = [colour for colour in COLOURS if colour != before[0]]
        after = (others[int(rng.integers(len(others)))], before[1])
    else:
        others = [shape for shape in SHAPES if shape != before[1]]
        after = (before[0], others[int(rng.integers(len(others)))])
    pictures = tuple(draw_thing(rng, *(before, after)[part]) for part in runs(rng, request.images, 2))
    sentence = difference(before, after)
    question = Question(" What is the difference?", f" {sentence}", sentence)
    return Sample(IMAGE * request.images, pictures, (question,))


def difference(before: tuple[str, str], after: tuple[str, str]) -> str:
    """The sentence that describes the change: what was there, and its new colour or shape."""
    changed = after[0] if after[0] != before[0] else after[1]
    return f"the {' '.join(before)} turned {changed}"


def spatial_relation(request: Request) -> Sample:
    """Each picture has a car in the middle and a thing beside it: on which side of the car is one of them?"""
    rng = request.rng
    places: dict[tuple[str, str], str] = {}
    shown = [any_thing(rng) for _ in range(request.images)]
    asked = [shown[int(i)] for i in rng.integers(len(shown), size=request.questions)]
    places[asked[0]] = SIDES[request.turn(len(SIDES), 0)]
    for thing in shown:
        places.setdefault(thing, SIDES[int(rng.integers(len(SIDES)))])
    pictures = tuple(draw_beside_car(rng, *thing, places[thing]) for thing in shown)
    questions = []
    for number, thing in enumerate(asked):
        name = " ".join(thing)
        sentence = f" {name} {places[thing]}"
        wrong = [f" {name} {side}" for side in SIDES if side != places[thing]]
        choices = request.options(sentence, wrong, 4, number, kinds=len(SIDES))
        questions.append(closed(f" Where is the {name}?", sentence, choices))
    return Sample(IMAGE * request.images, pictures, tuple(questions))
