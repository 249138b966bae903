"""What the trial tasks call: one document, asked in two rounds, by choices, and as frames of a video."""

from typing import Any

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "white", "yellow", "purple", "red", "blue")
FACT = "Find the fact.\n The badge of ada 7."
ASKS = " What is the badge of ada?"


def pictures(doc: dict[str, Any]) -> list[Image.Image]:
    """Eight squares on a dark ground."""
    drawn = []
    for colour in COLOURS:
        image = Image.new("RGB", (32, 32), (25, 25, 30))
        ImageDraw.Draw(image).rectangle((8, 8, 24, 24), fill=colour)
        drawn.append(image)
    return drawn


def interleaved(doc: dict[str, Any]) -> list[dict[str, Any]]:
    """A text, images, a text: in this order."""
    images = [{"type": "image", "url": image} for image in pictures(doc)]
    content = [{"type": "text", "text": FACT}, *images, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


def film(doc: dict[str, Any]) -> list[dict[str, Any]]:
    """The same, the pictures as frames of one video."""
    video = {"type": "video", "url": pictures(doc)}
    content = [{"type": "text", "text": FACT}, video, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


def rounds(
    doc: dict[str, Any],
    round_idx: int | None = None,
    previous_output: list[str] | None = None,
    previous_round_info: Any = None,
) -> Any:
    """The question, and once more in a second round."""
    if round_idx is None:
        return interleaved(doc)
    again = [{"role": "user", "content": [{"type": "text", "text": doc["question"]}]}]
    return (None if round_idx > 1 else again), round_idx > 1, previous_output, {"round": round_idx}


def text(doc: dict[str, Any]) -> str:
    """For models that are given texts and pictures apart."""
    return FACT + "<image>" * len(COLOURS) + doc["question"]


def right(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Whether the last answer is the right one."""
    last = results[0][-1] if isinstance(results[0], list) else results[0]
    return {"right": float(last.strip() == doc["answer"])}
