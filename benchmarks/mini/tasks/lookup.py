"""S-1, S-2, S-4 and I-1: find the picture that a name, a fact or another picture points to, and tell about it."""

from benchmarks.mini.pictures import draw_digit, draw_thing
from benchmarks.mini.sample import IMAGE, Question, Request, Sample
from benchmarks.mini.tasks.motion import closed
from benchmarks.mini.tasks.needles import any_thing
from benchmarks.mini.tasks.objects import THINGS
from benchmarks.mini.words import COLOURS, DIGITS, NAMES, SHAPES


def fact_and_picture(request: Request) -> Sample:
    """The text tells which colour somebody likes, the pictures tell which shape things of that colour have."""
    rng = request.rng
    shape_of = {colour: SHAPES[int(rng.integers(len(SHAPES)))] for colour in COLOURS}
    shown = [list(COLOURS)[int(i)] for i in rng.integers(len(COLOURS), size=request.images)]
    facts = max(2, request.questions)
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[:facts]]
    likes = [shown[int(i)] for i in rng.integers(len(shown), size=facts)]
    shape_of[likes[0]] = SHAPES[request.turn(len(SHAPES), 0)]
    told = "".join(f" Colour of {names[i]} {likes[i]}." for i in rng.permutation(facts))
    pictures = tuple(draw_thing(rng, colour, shape_of[colour]) for colour in shown)
    questions = []
    for number in range(request.questions):
        name, colour = names[number], likes[number]
        shape = shape_of[colour]
        other = [c for c in COLOURS if c != colour][int(rng.integers(len(COLOURS) - 1))]
        mistaken = [s for s in SHAPES if s != shape][int(rng.integers(len(SHAPES) - 1))]
        wrong = [f" {name} {c} {s}" for c, s in ((colour, mistaken), (other, shape), (other, mistaken))]
        sentence = f" {name} {colour} {shape}"
        choices = request.options(sentence, wrong, 4, number, kinds=len(SHAPES))
        questions.append(closed(f" Which shape is for {name}?", sentence, choices))
    middle = int(rng.integers(1, request.images))
    context = IMAGE * middle + told + IMAGE * (request.images - middle)
    return Sample(context, pictures, tuple(questions))


def slides(request: Request) -> Sample:
    """Every slide belongs to a name and shows a handwritten number: which one is on somebody's slide?"""
    rng = request.rng
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[: request.images]]
    digits = [int(d) for d in rng.integers(10, size=request.images)]
    asked = [int(i) for i in rng.permutation(request.images)[: request.questions]]
    digits[asked[0]] = request.turn(10, 0)
    pictures = tuple(draw_digit(rng, request.pool, digit) for digit in digits)
    questions = []
    for number, i in enumerate(asked):
        sentence = f" by {names[i]} {digits[i]}"
        wrong = [f" by {names[i]} {d}" for d in DIGITS if d != str(digits[i])]
        choices = request.options(sentence, wrong, 4, number, kinds=10)
        questions.append(closed(f" What is written by {names[i]}?", sentence, choices))
    return Sample(labelled(names), pictures, tuple(questions))


def conversation(request: Request) -> Sample:
    """A talk about what everybody saw; the last turn asks about somebody new and is answered in words."""
    rng = request.rng
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[: request.images]]
    things = [any_thing(rng) for _ in names]
    asked = [int(i) for i in rng.permutation(request.images)[: request.questions + 1]]  # one is told already
    things[asked[1]] = THINGS[request.turn(len(THINGS), 0)]
    pictures = tuple(draw_thing(rng, *thing) for thing in things)
    seen = [f"seen by {names[i]} a {' '.join(things[i])}" for i in asked]
    talk = f" Q: What was seen by {names[asked[0]]}? A: {seen[0]}."
    questions = tuple(
        Question(f" Q: And by {names[i]}?", f" {told}", " ".join(things[i]))
        for i, told in zip(asked[1:], seen[1:], strict=True)
    )
    return Sample(labelled(names) + talk, pictures, questions)


def matching_image(request: Request) -> Sample:
    """Named pictures, then another one: whose picture shows the same thing (elsewhere in the picture)?"""
    rng = request.rng
    candidates = request.images - 1
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[:candidates]]
    targets = min(request.questions, candidates)
    order = [THINGS[i] for i in rng.permutation(len(THINGS))]
    spread = min(len(order) - 1, targets + (len(order) - targets) // 2)
    others = [order[int(i)] for i in rng.integers(targets, spread + 1, size=candidates - targets)]
    things = [*order[:targets], *others]
    places = [int(i) for i in rng.permutation(candidates)]
    shown = [things[i] for i in places]
    pictures = tuple(draw_thing(rng, *thing) for thing in shown)
    questions = []
    for number in range(targets):
        name = names[places.index(number)]
        choices = request.options(name, [other for other in names if other != name], 4, number)
        query = draw_thing(rng, *things[number])
        sentence = f" {' '.join(things[number])} {name}"  # what is seen, then whose it is; the choices are names
        questions.append(Question(f" Who has the same as{IMAGE}?", sentence, name, choices, (query,)))
    return Sample(labelled(names), pictures, tuple(questions))


def labelled(names: list[str]) -> str:
    """One placeholder behind each name."""
    return "".join(f" {name}{IMAGE}" for name in names)
