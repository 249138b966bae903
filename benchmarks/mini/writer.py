"""Writes MileBench-mini in MileBench's on-disk format, in one stroke, and recognises what it wrote."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.milebench.scoring import image_quantity_level
from benchmarks.mini.pictures import digit_pool
from benchmarks.mini.sample import IMAGE, PLACES, Place, Request, Sample
from benchmarks.mini.seeds import evaluation_rng
from benchmarks.mini.taxonomy import TASKS, MiniTask
from benchmarks.mini.words import NAMES
from lookm.errors import LookmError

VERSION = 2  # a change of the data that the same settings give needs another one
MANIFEST = "manifest.json"
MOST_SAMPLES = 10_000
"""Of a dataset: with twelve datasets some two million images. MileBench's largest dataset has 600 samples."""
MOST_QUESTIONS = 5
_USUAL_SPREAD = 5  # most samples have a task's fewest images and up to so many more
_LONG_EVERY = 8  # every so many samples has any number of images up to the most


@dataclass(frozen=True)
class MiniSettings:
    """What decides the data.

    Args:
        seed: one of the evaluation's seeds.
        fewest, most: images per sample; tasks with long questions start with more than `fewest`.
        question: where the question stands in its prompt; a list of choices is always last.
        questions: about each context, where it has so many.

    Raises:
        LookmError: a size that cannot be had.
    """

    seed: int = 0
    samples: int = 52
    fewest: int = 8
    most: int = 40
    question: Place = "last"
    questions: int = 1

    def __post_init__(self) -> None:
        evaluation_rng(self.seed, 0, 0)
        for name in ("samples", "fewest", "most", "questions"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise LookmError(f"{name} is {value!r}; give a whole number")
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise LookmError(f"samples is {self.samples}; give 1 to {MOST_SAMPLES} per dataset of MileBench-mini")
        needed = max(task.fewest for task in TASKS)
        if not needed <= self.most <= len(NAMES):
            raise LookmError(f"most is {self.most} images; give a number from {needed} to {len(NAMES)}")
        if self.question not in PLACES:
            raise LookmError(f"question is {self.question!r}; it stands {' or '.join(PLACES)}")
        if not 1 <= self.questions <= MOST_QUESTIONS:
            raise LookmError(f"questions is {self.questions}; give 1 to {MOST_QUESTIONS} for each context")
        if not 1 <= self.fewest <= self.most:
            raise LookmError(f"fewest is {self.fewest} images; give a number from 1 to most ({self.most})")

    @property
    def folder(self) -> str:
        """Name of the data's folder."""
        name = f"v{VERSION}-seed{self.seed}-{self.samples}x{self.fewest}-{self.most}"
        name = name if self.question == "last" else f"{name}-{self.question}"
        return name if self.questions == 1 else f"{name}-ask{self.questions}"

    def asked(self, task: MiniTask) -> int:
        """Questions about each context of a task, no more than there are different ones."""
        return min(self.questions, task.most_questions)

    @property
    def recorded(self) -> dict[str, Any]:
        """The fields as the manifest has them; that one question stands last is not mentioned."""
        usual = (("question", "last"), ("questions", 1))
        return {name: value for name, value in asdict(self).items() if (name, value) not in usual}


def evaluation_sample(task: MiniTask, settings: MiniSettings, case: int) -> Sample:
    """Context number `case` of a dataset, with its questions."""
    rng = evaluation_rng(settings.seed, TASKS.index(task), case)
    fewest = max(task.fewest, settings.fewest)
    if case % _LONG_EVERY == _LONG_EVERY - 1:
        images = int(rng.integers(fewest, settings.most + 1))
    else:
        images = int(rng.integers(fewest, min(fewest + _USUAL_SPREAD, settings.most) + 1))
    return task.make(Request(rng, digit_pool("eval"), images=images, questions=settings.asked(task), case=case))


def write_mini(parent: Path, settings: MiniSettings) -> Path:
    """Write the data below `parent` unless they are there; returns their folder.

    Everything is written into a temporary folder first and then renamed, so that a folder with a manifest is complete.

    Raises:
        LookmError: the folder exists, but is not what these settings give.
    """
    folder = parent / settings.folder
    if folder.exists():
        check_written(folder, settings)
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{settings.folder}-", dir=parent))
    try:
        digests = {task.dataset: write_dataset(temporary / task.dataset, task, settings) for task in TASKS}
        manifest = {"version": VERSION, "settings": settings.recorded, "annotations": digests}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            check_written(folder, settings)  # another process was faster with the same data
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def check_written(folder: Path, settings: MiniSettings) -> None:
    """Compare the folder with its manifest and the settings.

    Raises:
        LookmError: they differ, or annotations were changed or removed.
    """
    again = f"delete {folder} to have it written again"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != VERSION or manifest["settings"] != settings.recorded:
            raise LookmError(f"{folder} was made with other settings: {again}")
        for dataset, digest in manifest["annotations"].items():
            if sha256((folder / dataset / f"{dataset}.json").read_bytes()) != digest:
                raise LookmError(f"{folder} is not as it was written ({dataset}.json was changed): {again}")
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise LookmError(f"{folder} is incomplete ({type(error).__name__}): {again}") from None


def write_dataset(folder: Path, task: MiniTask, settings: MiniSettings) -> str:
    """Write one dataset's images and annotation; returns the annotation's SHA-256."""
    (folder / "images").mkdir(parents=True)
    data = []
    for case in range(settings.samples):
        sample = evaluation_sample(task, settings, case)
        for number, question in enumerate(sample.questions):
            entry = annotation_entry(sample, case * settings.asked(task) + number, settings.question, number)
            pictures = sample.shown(question, settings.question)
            for path, picture in zip(entry["task_instance"]["images_path"], pictures, strict=True):
                if not (folder / "images" / path).exists():  # a context's questions share its pictures
                    Image.fromarray(picture).save(folder / "images" / path, compress_level=1)
            data.append(entry)
    meta = {
        "dataset": task.dataset,
        "split": "test",
        "num_sample": len(data),
        "task_instruction": [task.instruction],
        "question_type": task.question_type,
    }
    content = (json.dumps({"meta_data": meta, "data": data}, indent=1) + "\n").encode()
    (folder / f"{task.dataset}.json").write_bytes(content)
    return sha256(content)


def annotation_entry(sample: Sample, sample_id: int, place: Place = "last", number: int = 0) -> dict[str, Any]:
    """MileBench's JSON of question `number` of a sample; the files of its pictures are named by the first question."""
    question, first = sample.questions[number], sample_id - number
    own, shared = len(question.pictures), len(sample.pictures)
    images = own + shared
    names = [f"{sample_id}_{n}.png" for n in range(1, images + 1)]
    context = slice(0, shared) if place == "last" else slice(own, None)
    names[context] = [f"{first}_{n}.png" for n in range(1, images + 1)][context]
    instance: dict[str, Any] = {
        "context": numbered(sample.prompt(question, place, with_choices=False)),
        "images_path": names,
    }
    if question.choices:
        instance["choice_list"] = list(question.choices)
    return {
        "sample_id": sample_id,
        "task_instruction_id": 0,
        "response": question.response,
        "image_quantity_level": image_quantity_level(images),
        "task_instance": instance,
    }


def numbered(text: str) -> str:
    """The text with MileBench's placeholders: `{image#1}`, `{image#2}` …"""
    first, *rest = text.split(IMAGE)
    return first + "".join(f"{{image#{number}}}{piece}" for number, piece in enumerate(rest, start=1))


def sha256(content: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()
