"""From annotations to prompts and pictures: everything that happens before the model sees a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.benchmark import Benchmark, DatasetInfo
from benchmarks.evaluation.provenance import digest, sample_digest
from benchmarks.evaluation.selection import select_positions
from benchmarks.milebench import PROTOCOLS, Prompt, build_prompt, read_variant, score_predictions
from benchmarks.milebench.combined import write_grids
from benchmarks.milebench.images import open_images as open_images
from benchmarks.milebench.scoring import answer_fault, chance_level
from lookm.errors import LookmError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from benchmarks.evaluation.settings import Settings

# What a broken sample or a broken picture can raise, here and in Pillow (its decompression bomb error included).
DATA_ERRORS = (LookmError, OSError, ValueError, TypeError, KeyError, IndexError, SyntaxError, ArithmeticError)


@dataclass(frozen=True)
class Dataset:
    """One dataset as a run wants it: its annotation, the selected samples and their fingerprints.

    Attributes:
        info: name, task, metric.
        annotation: the whole annotation, for the scores.
        samples: the selected ones, by sample id (as text).
        digests: their fingerprints; `data` is the annotation's.
        folder: the dataset's folder.
        combine_image: N where the samples' images are shown as N grids; None shows them one by one.
    """

    info: DatasetInfo
    annotation: dict[str, Any]
    samples: dict[str, dict[str, Any]]
    digests: dict[str, str]
    data: str
    folder: Path
    combine_image: int | None = None

    def facts(self, name: str) -> dict[str, Any]:
        """What a record says of a sample before it is asked."""
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
        level = chance_level(self.info.dataset, self.annotation, sample)
        return self.info.chance if level is None else level

    def scores(self, sample: Mapping[str, Any], answer: str) -> dict[str, float]:
        """Scores of one answer under each protocol, in [0, 1] and unrounded.

        Raises:
            LookmError: the sample cannot be scored, since its truth is none of its choices.
        """
        annotation = {"meta_data": self.annotation["meta_data"], "data": [sample]}
        predictions = [{"sample_id": sample["sample_id"], "pred_response": answer}]
        return {
            protocol: float(
                score_predictions(self.info.dataset, annotation, predictions, protocol=protocol)["scores"][0]
            )
            for protocol in PROTOCOLS
        }

    def instruction(self, sample: Mapping[str, Any]) -> str:
        """The instruction that belongs to the sample."""
        return str(self.annotation["meta_data"]["task_instruction"][sample["task_instruction_id"]])


@dataclass(frozen=True)
class Prepared:
    """A sample with its prompt; `tokens` is its length with expanded images, without the conversation template."""

    sample_id: str
    prompt: Prompt
    tokens: int


def read_datasets(settings: Settings) -> list[Dataset]:
    """Reads the datasets that a run selects, each with the samples that it selects.

    Raises:
        LookmError: as `read_dataset`.
    """
    return [
        read_dataset(settings.benchmark, info, settings.limit, subset=settings.subset, seed=settings.seed)
        for info in settings.datasets
    ]


def read_dataset(
    benchmark: Benchmark, info: DatasetInfo, limit: int | None, *, subset: str = "first", seed: int = 0
) -> Dataset:
    """Reads a dataset's annotation, of the benchmark's variant, and chooses samples of it.

    Args:
        benchmark: where the dataset lies, and whether its adversarial samples or its combined images are wanted.
        info: which dataset.
        limit: how many samples to take; None takes all.
        subset: which ones, "first" or "random"; `seed` draws the latter.
        seed: see `select_positions`.

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
    digests = {
        name: sample_digest(sample, instructions[sample["task_instruction_id"]], folder / "images")
        for name, sample in samples.items()
    }
    return Dataset(info, annotation, samples, digests, digest(annotation), folder, benchmark.combine_image)


def prepare_prompts(
    dataset: Dataset,
    names: Sequence[str],
    *,
    tokenizer: PreTrainedTokenizerBase,
    max_context_len: int,
    n_tokens_per_image: int,
) -> Iterator[Prepared | tuple[str, Exception]]:
    """Builds the prompts of the named samples; a sample that has none gives its name and the reason.

    Combined images that are not on disk yet are made.
    """
    for name in names:
        sample = dataset.samples[name]
        try:
            fault = answer_fault(dataset.info.dataset, dataset.annotation, sample)
            if fault is not None:
                raise LookmError(fault)
            if dataset.combine_image is not None:
                write_grids(dataset.folder, sample, dataset.combine_image)
            prompt = build_prompt(
                sample,
                dataset.instruction(sample),
                dataset=dataset.info.dataset,
                tokenizer=tokenizer,
                max_context_len=max_context_len,
                n_tokens_per_image=n_tokens_per_image,
                image_dir=dataset.folder / "images",
                combine_image=dataset.combine_image,
            )
        except DATA_ERRORS as error:
            yield name, error
            continue
        text = len(tokenizer(prompt.context, add_special_tokens=False).input_ids)
        yield Prepared(name, prompt, text + len(prompt.images) * n_tokens_per_image)


def batches(samples: Sequence[Prepared], size: int) -> list[list[Prepared]]:
    """Groups samples of similar length, the longest first, so that little is padded and trouble shows early."""
    ordered = sorted(samples, key=lambda sample: sample.tokens, reverse=True)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def one_line(error: BaseException) -> str:
    """An exception in one line: its message, or its kind where it has none."""
    text = " ".join(str(error).split())
    known = isinstance(error, LookmError | OSError)
    return text if text and known else f"{type(error).__name__}: {text}" if text else type(error).__name__
