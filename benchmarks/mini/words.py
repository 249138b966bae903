"""The small vocabulary of MileBench-mini: what the pictures show and how the questions speak of it."""

NAMES = (
    *("ada", "bob", "cora", "dan", "eve", "finn", "gus", "hana", "ivo", "jude", "kim", "lars"),
    *("mia", "ned", "olga", "pia", "quin", "rosa", "sam", "tess", "uma", "vik", "wanda", "xena"),
    *("yuri", "zoe", "abel", "bruno", "carl", "dora", "emil", "fay", "greta", "hugo", "iris", "jack"),
    *("kurt", "lola", "mona", "nora", "otto", "paul", "rita", "simon", "tara", "theo", "vito", "walt"),
)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "green": (30, 190, 60),
    "blue": (60, 90, 250),
    "yellow": (240, 220, 40),
    "white": (240, 240, 240),
    "purple": (190, 60, 230),
}
SHAPES = ("circle", "square", "triangle", "cross")
ACTIONS = ("jump", "sit", "wave", "sleep", "run")
DIRECTIONS = ("left", "right", "up", "down")
SIDES = ("left", "right", "above", "below")
DIGITS = tuple("0123456789")
