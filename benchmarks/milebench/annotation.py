"""Reading `<root>/<Dataset>/<Dataset>.json`, with an exact message for everything that can be wrong with it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lookm.errors import LookmError

_HALVES = re.compile("[\ud800-\udfff]")
QUESTION_TYPES = ("open-ended", "multi-choice")
DEFAULT_ROOT = Path("data/MileBench")


def how_to_get(root: Path) -> str:
    """The command that gets MileBench into this folder."""
    option = "" if Path(root) == DEFAULT_ROOT else f" --root {shlex.quote(str(root))}"
    return f"get it with `lookm download milebench{option}`"


def annotation_path(root: Path, dataset: str, *, combine_image: int | None = None, adversarial: bool = False) -> Path:
    """Where the annotation of a dataset lies.

    Args:
        combine_image: N for the samples with N combined images; 1 is in the ordinary file.

    Raises:
        LookmError: both variants at once, which MileBench does not have, or N below 1.
    """
    combined = combine_image is not None and combine_image != 1
    if combine_image is not None and combine_image < 1:
        raise LookmError(f"combine_image is {combine_image}; it must be at least 1")
    if combine_image is not None and adversarial:
        raise LookmError(f"combine_image={combine_image} and adversarial cannot be had together; drop one of them")
    suffix = f"_combined_{combine_image}" if combined else "-adv" if adversarial else ""
    return Path(root) / dataset / f"{dataset}{suffix}.json"


def read_annotation(
    root: Path, dataset: str, *, combine_image: int | None = None, adversarial: bool = False
) -> dict[str, Any]:
    """Read and check the annotation of a dataset.

    Args:
        combine_image: N for the samples with N combined images.

    Returns:
        The parsed JSON: `meta_data` and `data` (see MileBench's format).

    Raises:
        LookmError: folder or file missing, broken JSON, a missing or unfitting field, or an image path that
            leaves the dataset's folder.
    """
    path = annotation_path(root, dataset, combine_image=combine_image, adversarial=adversarial)
    if not path.parent.is_dir():
        raise LookmError(f"dataset {dataset!r} is not in {Path(root)}: {how_to_get(root)}")
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in path.parent.glob("*.json"))) or "no annotation at all"
        raise LookmError(f"{path} does not exist; its folder has {there}")
    return read_annotation_file(path, combine_image=combine_image)


def read_annotation_file(path: Path, *, combine_image: int | None = None) -> dict[str, Any]:
    """Read and check one annotation file; see `read_annotation`.

    `task_instruction` may also be an object; what is returned has a list, and its samples the places in it.

    Raises:
        LookmError: as there.
    """
    content = read_json(path)
    try:
        check_annotation(content, combine_image=combine_image)
    except LookmError as error:
        raise LookmError(f"{path}: {error}") from None
    _list_instructions(content)
    return content


def _list_instructions(content: dict[str, Any]) -> None:
    """Turns instructions that are an object into a list, and the samples' ids into places in it."""
    instructions = content["meta_data"]["task_instruction"]
    if isinstance(instructions, dict):
        places = {key: place for place, key in enumerate(instructions)}
        content["meta_data"]["task_instruction"] = list(instructions.values())
        for sample in content["data"]:
            sample["task_instruction_id"] = places[str(sample["task_instruction_id"])]


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        LookmError: the file cannot be read, is not UTF-8, or breaks off; says which file, line and column.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise LookmError(f"{path}: broken JSON at {place}: {error.msg}; download or write it again") from None
    except UnicodeDecodeError as error:
        raise LookmError(f"{path}: not UTF-8 at byte {error.start}; download or write it again") from None
    except ValueError:  # Python's limit of 4300 digits
        raise LookmError(f"{path}: a number in it is too long to be read; download or write it again") from None
    except RecursionError:
        raise LookmError(f"{path}: JSON nested too deeply to be an annotation or predictions") from None
    except OSError as error:
        raise LookmError(f"{path}: cannot be read: {error.strerror}") from None


def digest(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def check_annotation(content: Any, *, combine_image: int | None = None) -> None:
    """Check parsed JSON against MileBench's format.

    Raises:
        LookmError: the first thing that is missing or does not fit: which sample, which field, what is there.
    """
    meta = _field(content, "meta_data", "an object", _is_object, "the annotation")
    _field(meta, "task_instruction", "a list or an object of texts", _are_instructions, "meta_data")
    expected = " or ".join(QUESTION_TYPES)
    _field(meta, "question_type", expected, lambda value: value in QUESTION_TYPES, "meta_data")
    samples = _field(content, "data", "a list with at least one sample", _is_filled_list, "the annotation")
    seen: dict[int, int] = {}
    for place, sample in enumerate(samples):
        number = _check_sample(sample, place, meta, combine_image)
        if number in seen:
            raise LookmError(f"data[{place}] has the sample_id {number} of data[{seen[number]}]; ids must differ")
        seen[number] = place


def _check_sample(sample: Any, place: int, meta: dict[str, Any], combine_image: int | None) -> int:
    where = f"data[{place}]"
    sample_id = _field(sample, "sample_id", "an integer or a string of one", _is_id, where)
    where = f"sample {sample_id!r} ({where})"
    instructions = meta["task_instruction"]
    if isinstance(instructions, dict):
        expected = f"one of {', '.join(instructions)}"
        _field(sample, "task_instruction_id", expected, lambda value: str(value) in instructions, where)
    else:
        expected = f"an integer from 0 to {len(instructions) - 1}"
        _field(sample, "task_instruction_id", expected, _is_index(len(instructions)), where)
    _field(sample, "response", "a text or a number", _is_scalar, where)
    instance = _field(sample, "task_instance", "an object", _is_object, where)
    where = f"{where}, task_instance"
    _field(instance, "context", "a text", _is_text, where)
    _field(instance, "images_path", "a list of texts", _is_texts, where)
    if meta["question_type"] == "multi-choice" or instance.get("choice_list") is not None:
        _field(instance, "choice_list", "a list of texts", _is_texts, where)
    fields = ["images_path"]
    if combine_image is not None:
        fields.append(f"combined_{combine_image}_images")
        _field(instance, fields[-1], "a list of texts", _is_texts, where)
    for field in fields:
        for path in instance[field]:
            _check_inside(path, field, where)
    return int(sample_id)


def _check_inside(path: str, field: str, where: str) -> None:
    for flavour in (PurePosixPath(path), PureWindowsPath(path)):
        if not path.strip() or "\0" in path or flavour.anchor or ".." in flavour.parts:
            raise LookmError(
                f"{where}: {field} has {path!r}, which leaves the image folder; only paths inside it are read"
            )


def _field(holder: Any, name: str, expected: str, fits: Callable[[Any], bool], where: str) -> Any:
    if not isinstance(holder, dict):
        raise LookmError(f"{where} is {_shown(holder)}, not an object with {name!r}")
    if name not in holder:
        raise LookmError(f"{where} has no {name!r}; it must be {expected}")
    if not fits(holder[name]):
        raise LookmError(f"{where}: {name!r} is {_shown(holder[name])}; it must be {expected}")
    return holder[name]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    """Whether it is a text that can be written: JSON can also spell halves of characters (`\\ud800`)."""
    return isinstance(value, str) and not _HALVES.search(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_instructions(value: Any) -> bool:
    return _is_texts(list(value.values()) if isinstance(value, dict) else value)


def _is_filled_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _is_scalar(value: Any) -> bool:
    return _is_text(value) or isinstance(value, int | float)


def _is_index(count: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def _is_id(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return False
    try:
        int(value)
    except ValueError:
        return False
    return True
