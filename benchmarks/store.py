"""The folder of one run: what is there already, what fits to it, and what is added."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.files import read_json, write_json
from benchmarks.records import SampleRecord, read_records, write_records
from lookm.errors import LookmError

FORMAT = 1
AFRESH = "overwrite=true starts afresh"


class RunFolder:
    """`<results_dir>/<run>/`: `run.json` and, per dataset, `samples.jsonl` and the files made from it.

    `samples.jsonl` is the only file that results are added to, one flushed line per sample; all others are written
    anew, atomically, from it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._about: dict[str, Any] = read_json(path / "run.json") or {}
        self._records: dict[str, dict[str, SampleRecord]] = {}

    @property
    def about(self) -> Mapping[str, Any]:
        """What `run.json` says; empty before the run."""
        return self._about

    @property
    def exists(self) -> bool:
        """Whether a run has begun here."""
        return bool(self._about)

    def records(self, dataset: str) -> Mapping[str, SampleRecord]:
        """The records of a dataset by sample id (as text), failed samples included."""
        if dataset not in self._records:
            self._records[dataset] = read_records(self._samples(dataset))
        return self._records[dataset]

    def clear(self) -> None:
        """Throws the run away.

        Raises:
            LookmError: the folder holds something, but no run.
        """
        if self.path.exists() and not self.exists and any(self.path.iterdir()):
            raise LookmError(f"{self.path} holds no run (no run.json), so overwrite=true leaves it alone; move it away")
        if self.path.exists():
            shutil.rmtree(self.path)
        self._about, self._records = {}, {}

    def check(self, **expected: Any) -> None:
        """Refuses to go on with a run that was made from something else.

        Args:
            **expected: values of `run.json`; of mappings, only keys that both sides have are compared for `data`, all
                keys for the others. None is not compared.

        Raises:
            LookmError: what differs, in one line.
        """
        if not self.exists:
            if self.path.is_dir() and any(self.path.glob("*/samples.jsonl")):
                raise LookmError(f"{self.path} has samples but no readable run.json; {AFRESH} after moving it away")
            return
        if self._about.get("format") != FORMAT:
            raise LookmError(f"{self.path} was written by another version of this program; {AFRESH}")
        for name, value in expected.items():
            there = self._about.get(name)
            if value is None or there is None:
                continue
            difference = _difference(there, value, shared_keys_only=name == "data")
            if difference:
                raise LookmError(f"{self.path} was computed with other {name} ({difference}); {AFRESH}")

    def describe(self, **values: Any) -> None:
        """Sets values of `run.json` and writes it; `data` and `results` gain keys, all else is replaced.

        Raises:
            LookmError: the folder cannot be written to.
        """
        merged = {"format": FORMAT, **self._about}
        for name, value in values.items():
            old = merged.get(name)
            merged[name] = {**old, **value} if isinstance(old, dict) and name in ("data", "results") else value
        try:
            write_json(self.path / "run.json", merged)
        except OSError as error:
            raise LookmError(f"{self.path} cannot be written to ({error.strerror}); see results_dir") from None
        self._about = merged

    @contextmanager
    def session(self, **values: Any) -> Iterator[None]:
        """Keeps in `run.json` that something is computed meanwhile, from when to when, and how it ended."""
        earlier = self._about.get("sessions", [])
        begun = {"started": _now(), **values}
        self.describe(state="running", sessions=[*earlier, begun])
        state = "stopped by an error"
        try:
            yield
            state = "finished"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        finally:
            self.describe(state=state, sessions=[*earlier, {**begun, "ended": _now(), "state": state}])

    def append(self, dataset: str, records: Iterable[SampleRecord]) -> None:
        """Adds finished samples, each with one flushed line."""
        known = dict(self.records(dataset))
        path = self._samples(dataset)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="\n") as stream:
            for record in records:
                stream.write(record.to_line())
                stream.flush()
                known[str(record.sample_id)] = record
        self._records[dataset] = known

    def sort(self, dataset: str, order: list[str]) -> None:
        """Rewrites `samples.jsonl` in the annotation's order, without the failures that a later try made good."""
        path, records = self._samples(dataset), self.records(dataset)
        wanted = [name for name in order if name in records]
        with suppress(OSError):
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
            if lines == [records[name].to_line()[:-1] for name in wanted]:
                return
        if records:
            write_records(path, dict(records), wanted)

    def _samples(self, dataset: str) -> Path:
        return self.path / dataset / "samples.jsonl"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _difference(there: Any, here: Any, *, shared_keys_only: bool, name: str = "") -> str:
    """The first difference between two JSON values in words; empty where there is none."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*here, *(key for key in there if key not in here)]:
            if shared_keys_only and not (key in there and key in here):
                continue
            path = f"{name}.{key}" if name else str(key)
            found = _difference(there.get(key), here.get(key), shared_keys_only=False, name=path)
            if found:
                return found
        return ""
    if _plain(there) == _plain(here):
        return ""
    return f"{name or 'value'}: {there!r} there, {here!r} now"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
