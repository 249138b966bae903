"""One finished sample, as a line of `samples.jsonl`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.files import write_text
from lookm.errors import LookmError

SampleId = int | str


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """What was asked, what the cache kept, what was answered and how long it took.

    Attributes:
        sample_id: as the annotation has it.
        digest: fingerprint of the sample and its images (`provenance.sample_digest`).
        task: task code of the sample's dataset, such as "T-1".
        n_images: images of the annotation, before any were dropped.
        chance: expected score of guessing, in [0, 1]: one over the number of choices where there are choices, else the
            benchmark's own level for the dataset; None where nobody knows.
        scores: protocol → score in [0, 1], unrounded; None where there is no answer.
        error: why there is no answer; None where there is one.
        question: the prompt without the conversation template, one `<ImageHere>` per image.
        images: paths of the images shown, relative to the benchmark's folder.
        dropped_images, dropped_tokens: what did not fit in the context.
        notes: oddities of the sample that were survived.
        prompt_tokens, image_tokens: prompt length with expanded images, and the part of it that is image tokens.
        kept_tokens: tokens kept per head, one number per layer; a mean where heads keep different numbers.
        realised_budget: mean over the layers of kept / prompt tokens.
        kept_bytes, full_bytes: key and value bytes after and before compression, all layers, as they are allocated.
        peak_bytes: the most of them at once during the prefill; 0 in records from before it was noted.
        answer: the generated text; answer_tokens: its token ids, the closing one included.
        times: `compress_ms` and `prefill_ms` of the whole batch, `decode_ms_per_token` of one step of the batch (None
            where one token was generated), `batch`: prompts in the batch, `decode_rows`: rows of a step. The first
            three are None where several strategies shared the prefill: they belong to none of them alone.
    """

    sample_id: SampleId
    digest: str
    task: str = ""
    n_images: int = 0
    chance: float | None = None
    scores: dict[str, float] | None = None
    error: str | None = None
    question: str = ""
    images: tuple[str, ...] = ()
    dropped_images: int = 0
    dropped_tokens: int = 0
    notes: tuple[str, ...] = ()
    prompt_tokens: int = 0
    image_tokens: int = 0
    kept_tokens: tuple[float, ...] = ()
    realised_budget: float | None = None
    kept_bytes: int = 0
    full_bytes: int = 0
    peak_bytes: int = 0
    answer: str = ""
    answer_tokens: tuple[int, ...] = ()
    times: dict[str, float | int | None] | None = None

    @property
    def answered(self) -> bool:
        """Whether the model gave an answer; samples without one are tried again by the next run."""
        return self.error is None

    def to_line(self) -> str:
        """The record as one line of JSON, its newline included."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> SampleRecord:
        """Reads what `to_line` wrote, now or before fields with a default were added.

        Raises:
            ValueError: the line is torn, or not a record.
        """
        try:
            parsed = json.loads(line)
        except RecursionError:
            raise ValueError("not a sample record") from None
        if not isinstance(parsed, dict) or not {"sample_id", "digest"} <= set(parsed) <= _FIELDS:
            raise ValueError("not a sample record")
        if not isinstance(parsed["sample_id"], int | str) or not isinstance(parsed["digest"], str):
            raise ValueError("not a sample record")
        if not isinstance(parsed.get("scores"), dict | None):
            raise ValueError("not a sample record")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in parsed.items()}
        return cls(**values)


_FIELDS = {field.name for field in fields(SampleRecord)}


def read_records(*paths: Path) -> dict[str, SampleRecord]:
    """Records of one dataset by sample id (as text); none where there is no file.

    Of several records of a sample the last one counts, but an answer is never replaced by a failure. Lines that a
    crash tore are left out. Nothing is written: somebody else may be adding to the files.
    """
    records: dict[str, SampleRecord] = {}
    for path in paths:
        for record in _readable(path)[0]:
            name = str(record.sample_id)
            if record.answered or not (name in records and records[name].answered):
                records[name] = record
    return records


def mend_records(path: Path) -> bool:
    """Removes lines that a crash tore, so that the next line appended begins on a line of its own.

    Only for the one who holds the run.

    Returns:
        Whether there were any.
    """
    records, torn = _readable(path)
    if torn:
        write_text(path, "".join(record.to_line() for record in records))
    return torn


def write_records(path: Path, records: dict[str, SampleRecord], order: list[str]) -> None:
    """Writes the records of one dataset anew, one line per sample, those of `order` first and in that order."""
    ids = [name for name in order if name in records]
    ids += [name for name in records if name not in set(order)]
    write_text(path, "".join(records[name].to_line() for name in ids))


def _readable(path: Path) -> tuple[list[SampleRecord], bool]:
    """The records of a file, line by line, and whether lines had to be left out; a line ends with its newline."""
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return [], False
    except OSError as error:
        raise LookmError(f"{path} cannot be read: {error.strerror}") from None
    records = []
    torn = bool(rest)
    for line in lines:
        try:
            records.append(SampleRecord.from_line(line))
        except ValueError:
            torn = True
    return records, torn
