"""One dataset in MileBench's format as a run takes it: annotation, selected samples, fingerprints, scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.benchmark import Benchmark, DatasetInfo, select_positions
from benchmarks.milebench.annotation import digest
from benchmarks.milebench.combined import read_variant
from benchmarks.milebench.prompts import Prompt, Reader, build_prompt
from benchmarks.milebench.scoring import PROTOCOLS, chance_level, score_predictions
from lookm.errors import LookmError

DATA_ERRORS = (LookmError, OSError, ValueError, TypeError, KeyError, IndexError, SyntaxError, ArithmeticError)
"""What a broken sample or a broken image can raise, here and in Pillow (its decompression bomb error included)."""


@dataclass(frozen=True)
class Dataset:
    """One dataset: its annotation, the selected samples and their fingerprints.

    Attributes:
        samples: the selected ones, by sample id (as text).
        digests: their fingerprints; `data` is the annotation's.
        combine_image: N where the samples' images are shown as N grids; None shows them one by one.
        question_starts: where the question begins in each sample's context, if questions come after it.
        left_out: how many of the samples were left out, because nothing is before their question.
    """

    info: DatasetInfo
    annotation: dict[str, Any]
    samples: dict[str, dict[str, Any]]
    digests: dict[str, str]
    data: str
    folder: Path
    combine_image: int | None = None
    question_starts: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.info.dataset

    def facts(self, name: str) -> dict[str, Any]:
        """What a record says of a selected sample before it has an answer."""
        sample = self.samples[name]
        return {
            "sample_id": sample["sample_id"],
            "digest": self.digests[name],
            "task": self.info.task,
            "n_images": len(sample["task_instance"]["images_path"]),
            "chance": self.chance(sample),
        }

    def chance(self, sample: Mapping[str, Any]) -> float | None:
        """Expected score of guessing: from the sample's choices where it has some, else the benchmark's level."""
        level = chance_level(self.name, self.annotation, sample)
        return self.info.chance if level is None else level

    def scores(self, sample: Mapping[str, Any], answer: str) -> dict[str, float]:
        """Scores of one answer under each protocol, in [0, 1] and unrounded.

        Raises:
            LookmError: the sample cannot be scored, since its truth is none of its choices.
        """
        annotation = {"meta_data": self.annotation["meta_data"], "data": [sample]}
        predictions = [{"sample_id": sample["sample_id"], "pred_response": answer}]
        return {
            protocol: float(score_predictions(self.name, annotation, predictions, protocol=protocol)["scores"][0])
            for protocol in PROTOCOLS
        }

    def prompt(self, name: str, reader: Reader) -> Prompt:
        """The prompt of a selected sample, as MileBench's reader makes it for a model.

        Raises:
            LookmError: not exactly one combined image, or no room for anything before a question that comes later.
        """
        sample = self.samples[name]
        return build_prompt(
            sample,
            self.instruction(sample),
            dataset=self.name,
            tokenizer=reader.tokenizer,
            max_context_len=reader.max_context_len,
            n_tokens_per_image=reader.n_tokens_per_image,
            image_dir=self.folder / "images",
            combine_image=self.combine_image,
            question_start=self.question_starts.get(name),
        )

    def instruction(self, sample: Mapping[str, Any]) -> str:
        """The instruction that belongs to the sample."""
        return str(self.annotation["meta_data"]["task_instruction"][sample["task_instruction_id"]])


def read_dataset(
    benchmark: Benchmark,
    info: DatasetInfo,
    limit: int | None,
    *,
    subset: str = "first",
    seed: int = 0,
    asked_later: bool = False,
) -> Dataset:
    """Reads a dataset's annotation, of the benchmark's variant, and selects samples of it.

    Args:
        benchmark: where the dataset lies, and whether its adversarial samples or its combined images are wanted.
        asked_later: whether questions come after their context; samples of which nothing does are left out.

    Raises:
        LookmError: missing folder, broken JSON, or an annotation that is none.
    """
    annotation = read_variant(
        benchmark.root, info.dataset, combine_image=benchmark.combine_image, adversarial=benchmark.adversarial
    )
    data, instructions = annotation["data"], annotation["meta_data"]["task_instruction"]
    folder = benchmark.root / info.dataset
    positions = select_positions(len(data), limit=limit, subset=subset, seed=seed, dataset=info.dataset)
    samples = {str(data[position]["sample_id"]): data[position] for position in positions}
    starts: dict[str, int] = {}
    if asked_later:
        for name, sample in samples.items():
            instance = sample["task_instance"]
            start = info.question_start(instance["context"], choices=bool(instance.get("choice_list")))
            starts |= {} if start is None else {name: start}
        samples = {name: samples[name] for name in starts}
    digests = {
        name: sample_digest(sample, instructions[sample["task_instruction_id"]], folder / "images")
        for name, sample in samples.items()
    }
    return Dataset(
        info,
        annotation,
        samples,
        digests,
        digest(annotation),
        folder,
        benchmark.combine_image,
        question_starts=starts,
        left_out=len(positions) - len(samples),
    )


def sample_digest(sample: Mapping[str, Any], instruction: str, image_dir: Path) -> str:
    """Fingerprint of all that an answer is made from: the sample, its instruction, names and sizes of its images.

    Pixels are not read: a whole benchmark must be checked in seconds whenever a run goes on.
    """
    instance = sample.get("task_instance")
    paths = instance.get("images_path", []) if isinstance(instance, Mapping) else []
    sizes = [_size(image_dir / str(path)) for path in paths] if isinstance(paths, list) else []
    return digest([sample, instruction, sizes])


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
