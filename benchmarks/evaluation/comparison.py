"""What must be the same in two runs of the same configuration: everything but the times.

Times are `times` of each record in `samples.jsonl` (milliseconds, and the batch they were measured in) and `sessions`
of `run.json` (who computed when, on what). All other bytes of all files count.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from benchmarks.evaluation.files import read_json
from benchmarks.evaluation.records import SampleRecord
from lookm.errors import LookmError


def timeless(folder: Path) -> dict[str, bytes]:
    """The files of a run folder by their path in it, without the times.

    Raises:
        LookmError: no run, or a line of `samples.jsonl` that is no record.
    """
    if not isinstance(read_json(folder / "run.json"), dict):
        raise LookmError(f"{folder} holds no run")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _timeless_file(path) for path in files}


def difference(one: Path, other: Path) -> str:
    """The first file in which two run folders differ, and where; empty if they agree in all but the times.

    Raises:
        LookmError: as `timeless`.
    """
    here, there = timeless(one), timeless(other)
    for name in sorted({*here, *there}):
        if name not in here or name not in there:
            return f"{name} is only in {one if name in here else other}"
        if here[name] != there[name]:
            lines = zip(here[name].split(b"\n"), there[name].split(b"\n"), strict=False)
            place = next((number for number, (left, right) in enumerate(lines, 1) if left != right), None)
            return f"{name} differs" + (f" in line {place}" if place else " in length")
    return ""


def _timeless_file(path: Path) -> bytes:
    if path.name == "run.json":
        about = {key: value for key, value in read_json(path).items() if key != "sessions"}
        return json.dumps(about, ensure_ascii=False, indent=2).encode()
    if path.suffix == ".jsonl":
        *lines, rest = path.read_bytes().split(b"\n")
        if rest:
            raise LookmError(f"{path} ends in a torn line; run it again to mend it")
        try:
            records = [SampleRecord.from_line(line) for line in lines]
        except ValueError as error:
            raise LookmError(f"{path} has a line that is no record ({error}); run it again to mend it") from None
        return "".join(replace(record, times=None).to_line() for record in records).encode()
    return path.read_bytes()
