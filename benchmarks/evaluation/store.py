"""The folder of one run: what is there already, what fits to it, and what is added, by one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.evaluation.comparable import difference_in
from benchmarks.evaluation.lock import Lock
from benchmarks.evaluation.provenance import code_digest
from benchmarks.evaluation.records import SampleRecord, mend_records, read_records, write_records
from benchmarks.files import append_text, read_json, remove_temporaries, write_json, writing
from lookm.errors import LookmError

FORMAT = 2
"""Of run folders; those of another are refused."""
AFRESH = "overwrite=true starts afresh"
LOCKS = ".locks"
"""Folder beside the runs that holds their locks, and runs that are being thrown away."""


Results = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class RunFolder:
    """`<results_dir>/<run>/`: `run.json` and, per dataset, `samples.jsonl` and the files made from it.

    `samples.jsonl` is the only file that results are added to, one synchronised write per batch; all others are written
    anew, atomically, from it. Whoever writes holds the run's lock; readers need none and change nothing.

    Args:
        shard: the number of a process that computes a part of the run beside others: it adds to
            `samples.<shard>.jsonl`, which the process that holds the run absorbs.
    """

    def __init__(self, path: Path, *, shard: int | None = None) -> None:
        self.path = path
        self._shard = shard
        name = path.name if shard is None else f"{path.name}.{shard}"
        self._lock = Lock(path.parent / LOCKS / name, str(path))
        self._about: dict[str, Any] = {}
        self._records: dict[str, dict[str, SampleRecord]] = {}
        self._in_session = False
        self._read()

    @property
    def about(self) -> Mapping[str, Any]:
        """What `run.json` says; empty before the run."""
        return self._about

    @property
    def exists(self) -> bool:
        """Whether a run has begun here."""
        return bool(self._about)

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self._about.get("name", self.path.name))

    @property
    def configuration(self) -> Mapping[str, Any]:
        """What decides the answers: `model`, `benchmark`, `strategy` (each with its `name`), `seed`, `dtype`."""
        configuration = self._about.get("configuration")
        return configuration if isinstance(configuration, dict) else {}

    @property
    def resolved(self) -> dict[str, Any]:
        """The whole configuration of the last session that tells it, folders and devices included; empty without."""
        sessions = [session for session in self._about.get("sessions") or [] if session.get("resolved")]
        return dict(sessions[-1]["resolved"]) if sessions else {}

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets with samples, in the benchmark's order where `run.json` says it."""
        names = {path.parent.name for path in self.path.glob("*/samples*.jsonl")}
        order = [name for name in self._about.get("datasets", {}) if name in names]
        return (*order, *sorted(names.difference(order)))

    def records(self, dataset: str) -> Mapping[str, SampleRecord]:
        """The records of a dataset by sample id (as text), failed samples included."""
        if dataset not in self._records:
            self._records[dataset] = read_records(self._samples(dataset), *self._shards(dataset))
        return self._records[dataset]

    @contextmanager
    def hold(self, *, wait: bool = False) -> Iterator[None]:
        """Makes this object the only one that writes to the run, and brings it up to date with the disk.

        What a killed process left is put right: torn lines, unfinished files, the shards of its helpers. May be nested.

        Args:
            wait: wait for another process that holds the run, after saying so on stderr; otherwise refuse.

        Raises:
            LookmError: another process holds the run (which, where, since when), or nothing can be written here.
        """
        if self._lock.held:
            yield
            return
        self._lock.acquire(wait=wait)
        try:
            self._put_right()
            yield
        finally:
            self._lock.release()

    def absorb(self) -> None:
        """Moves the records of all shards into `samples.jsonl`; done twice, or killed in between, it ends the same.

        Raises:
            LookmError: a process still adds to a shard, or the folder cannot be written to.
        """
        self._lock.check()
        for shard, files in self._all_shards().items():
            with RunFolder(self.path, shard=shard).hold(), writing(self.path):
                for file in files:
                    dataset = file.parent.name
                    self._records.pop(dataset, None)
                    write_records(self._samples(dataset), dict(self.records(dataset)), list(self.records(dataset)))
                    file.unlink()

    def clear(self) -> None:
        """Throws the run away, in one step.

        Raises:
            LookmError: the folder holds something, but no run.
        """
        if self.path.exists() and not self.exists and any(self.path.iterdir()):
            raise LookmError(f"{self.path} holds no run (no run.json), so overwrite=true leaves it alone; move it away")
        with self.hold(), writing(self.path):
            if self.path.exists():
                shutil.rmtree(self._thrown_away, ignore_errors=True)
                self._thrown_away.parent.mkdir(parents=True, exist_ok=True)
                os.rename(self.path, self._thrown_away)  # noqa: PTH104 (a rename that must not fall back to copying)
                shutil.rmtree(self._thrown_away)
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
        self.check_format()
        for name, value in expected.items():
            recorded = self._about.get(name)
            if value is None or recorded is None:
                continue
            difference = difference_in(recorded, value, shared_keys_only=name == "data")
            if difference:
                raise LookmError(f"{self.path} was computed with other {name} ({difference}); {AFRESH}")

    def check_format(self) -> None:
        """Refuses a run that another version of this program wrote in another way.

        Raises:
            LookmError: it did.
        """
        if self._about.get("format") != FORMAT:
            raise LookmError(f"{self.path} was written by another version of this program; {AFRESH}")

    def describe(self, **values: Any) -> None:
        """Sets values of `run.json` and writes it; `data`, `results` and `left_out` gain keys, all else is replaced.

        Raises:
            LookmError: the folder cannot be written to, or another process holds the run.
        """
        merged = {**self._about, "format": FORMAT}
        for name, value in values.items():
            old = merged.get(name)
            if name in ("data", "results", "left_out"):  # sorted: datasets are not always finished in the same order
                value = dict(sorted({**(old if isinstance(old, dict) else {}), **value}.items()))
            merged[name] = value
        with self.hold(), writing(self.path):
            self._lock.check()
            write_json(self.path / "run.json", merged)
        self._about = merged

    @contextmanager
    def session(self, **values: Any) -> Iterator[None]:
        """Holds the run, and keeps in `run.json` that something is computed, from when to when, and how it ended.

        Args:
            **values: about the session; the fingerprint of this program is added.
        """
        with self.hold():
            earlier = self._about.get("sessions", [])
            begun = {"started": _now(), "code": code_digest(), **values}
            self.describe(state="running", sessions=[*earlier, begun])

            def end(state: str) -> None:
                self._in_session = False
                self.describe(state=state, sessions=[*earlier, {**begun, "ended": _now(), "state": state}])

            self._in_session = True
            try:
                yield
            except BaseException as error:
                with suppress(LookmError):  # such as a full disk: what stopped the session is the news
                    end("interrupted" if isinstance(error, KeyboardInterrupt) else "stopped by an error")
                raise
            end("finished")

    def finish(self, results: Mapping[str, Any]) -> None:
        """Notes what the samples amount to, and outside a session that the run is finished.

        A run that was killed after its last sample has nothing left to compute, and so no session that would say so.
        """
        self.describe(results=results, **({} if self._in_session else {"state": "finished"}))

    def append(self, dataset: str, records: Iterable[SampleRecord]) -> None:
        """Adds finished samples, one line each, all of them or none.

        Raises:
            LookmError: the file cannot be written to (such as a full disk), or another process holds the run.
        """
        added = list(records)
        if not added:
            return
        with self.hold(), writing(self._samples(dataset)):
            self._lock.check()
            known = dict(self.records(dataset))
            append_text(self._samples(dataset), "".join(record.to_line() for record in added))
        known.update((str(record.sample_id), record) for record in added)
        self._records[dataset] = known

    def sort(self, dataset: str, order: list[str]) -> None:
        """Rewrites `samples.jsonl` in the annotation's order, without the failures that a later try made good.

        Raises:
            LookmError: the folder cannot be written to, or another process holds the run.
        """
        path, records = self._samples(dataset), self.records(dataset)
        if records:
            with self.hold(), writing(path):
                self._lock.check()
                write_records(path, dict(records), order)

    @property
    def _thrown_away(self) -> Path:
        return self.path.parent / LOCKS / f"{self.path.name}.thrown-away"

    def _read(self) -> None:
        about = read_json(self.path / "run.json")
        self._about, self._records = about if isinstance(about, dict) else {}, {}

    def _put_right(self) -> None:
        """What is to be done before the holder may write."""
        with writing(self.path):
            if self._shard is None:
                shutil.rmtree(self._thrown_away, ignore_errors=True)
                remove_temporaries(self.path)
            for file in self.path.glob(f"*/{self._samples('x').name}"):
                mend_records(file)
        self._read()
        if self._shard is None:
            self.absorb()

    def _samples(self, dataset: str) -> Path:
        return self.path / dataset / ("samples.jsonl" if self._shard is None else f"samples.{self._shard}.jsonl")

    def _shards(self, dataset: str) -> list[Path]:
        """The files of helpers in one dataset; a helper sees only its own."""
        return [] if self._shard is not None else sorted((self.path / dataset).glob("samples.*.jsonl"))

    def _all_shards(self) -> dict[int, list[Path]]:
        files: dict[int, list[Path]] = {}
        for file in sorted(self.path.glob("*/samples.*.jsonl")):
            number = file.name.split(".")[1]
            if number.isdigit():
                files.setdefault(int(number), []).append(file)
        return files


def find_runs(results: Results) -> list[RunFolder]:
    """The runs in a results folder, or in the given run folders, by name.

    Args:
        results: a folder that holds run folders, one run folder, or several of either.

    Raises:
        LookmError: a folder that does not exist, or holds no run, or one of another format.
    """
    folders = [results] if isinstance(results, str | os.PathLike) else results
    runs: dict[Path, RunFolder] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise LookmError(f"{folder} does not exist; run.py writes its results below results_dir (results/runs)")
        paths = [folder] if (folder / "run.json").is_file() else [path.parent for path in folder.glob("*/run.json")]
        if not paths:
            raise LookmError(f"{folder} holds no run (no <run>/run.json)")
        for run in map(RunFolder, paths):
            if run.configuration:
                run.check_format()
                runs[run.path.resolve()] = run
    return sorted(runs.values(), key=lambda run: run.name)


@contextmanager
def hold_all(folders: Sequence[RunFolder], *, wait: bool = False) -> Iterator[None]:
    """Holds several runs, always in the same order, so that two processes never wait for each other.

    Raises:
        LookmError: as `RunFolder.hold`; none is held then.
    """
    with ExitStack() as stack:
        for folder in sorted(folders, key=lambda folder: str(folder.path.absolute())):
            stack.enter_context(folder.hold(wait=wait))
        yield


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
