"""One process at a time writes to a run; a lock ends with its holder, and a holder elsewhere shows that it lives."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from filelock._marker import OwnerRecord, encode_marker

from benchmarks.evaluation import lock
from benchmarks.evaluation.lock import LEASE, Lock
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.run import run
from benchmarks.evaluation.store import RunFolder, hold_all
from benchmarks.files import write_json
from lookm.errors import LookmError
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import NEEDLE

HOLD = """
import sys, time
from pathlib import Path
from benchmarks.evaluation.lock import LEASE, Lock
lock = Lock(Path(sys.argv[1]), "the run")
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""
QUICK = {"beat": 0.05, "length": 0.4, "settle": 0.2}


def quick(path: Path) -> Lock:
    """A lock whose holders elsewhere are given up after 0.4 seconds."""
    return Lock(path, "the run", **QUICK)


def elsewhere(path: Path) -> Path:
    """Leaves the lease of a holder on another machine; returns its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = OwnerRecord(pid=4711, hostname="node7", mode="lease", token="t", lease_duration=QUICK["length"], start=1)
    lease, temporary = path.with_name(f"{path.name}.lease"), path.with_name("new")
    temporary.write_bytes(encode_marker(record))
    temporary.replace(lease)
    write_json(path.with_name(f"{path.name}.holder"), {"pid": 4711, "host": "node7", "since": "yesterday"})
    return lease


@pytest.fixture
def no_system_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose `flock` reaches nobody else."""
    monkeypatch.setattr(Lock, "_acquire_system", lambda self: True)


@pytest.fixture(params=["names can be exchanged", "names cannot be exchanged"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems that swap two names in one step, and those that refuse to (NFS, SMB)."""
    if request.param == "names cannot be exchanged":
        monkeypatch.setattr("filelock._soft.exchange_names", lambda source, target: False)


@pytest.mark.usefixtures("exchange")
def test_the_second_process_is_refused_in_one_line_and_a_killed_holder_leaves_nothing_locked(tmp_path: Path) -> None:
    path = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(LookmError) as refusal:
            Lock(path, "the run").acquire()
        told = (
            rf"the run is being computed by process {child.pid} on {re.escape(socket.gethostname())} since \S+; wait .*"
        )
        assert re.fullmatch(told, str(refusal.value))
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(LookmError, match="is being computed by"):
            quick(path).acquire()
    finally:
        child.kill()
        child.wait()
    began = time.monotonic()
    lock = Lock(path, "the run", settle=0.2)
    lock.acquire()
    assert time.monotonic() - began < LEASE / 2, "a dead holder on this machine is known at once"
    lock.release()


def test_who_waits_says_for_whom_once_and_goes_on_when_it_is_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_POLL", 0.02)
    first, second = quick(tmp_path / "run"), quick(tmp_path / "run")
    first.acquire()
    threading.Timer(0.2, first.release).start()
    second.acquire(wait=True)
    assert second.held
    second.release()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"process {os.getpid()} on" in said[0]
    assert said[0].endswith("; waiting for it")


@pytest.mark.usefixtures("no_system_lock", "exchange")
def test_a_holder_on_another_machine_that_shows_life_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "run"
    lease = elsewhere(path)
    threading.Timer(0.1, lambda: os.utime(lease)).start()
    with pytest.raises(LookmError, match="process 4711 on node7 since"):
        quick(path).acquire()


@pytest.mark.usefixtures("exchange")
@pytest.mark.parametrize("system", ["with flock", "without flock"])
def test_a_silent_holder_on_another_machine_is_dead_after_the_lease(
    tmp_path: Path, system: str, request: pytest.FixtureRequest
) -> None:
    if system == "without flock":
        request.getfixturevalue("no_system_lock")
    path = tmp_path / "run"
    elsewhere(path)
    began = time.monotonic()
    lock = quick(path)
    lock.acquire()
    assert time.monotonic() - began >= QUICK["length"], "it was watched"
    lock.release()


@pytest.mark.usefixtures("no_system_lock", "exchange")
@pytest.mark.parametrize("left", ["nothing", "a dead holder's lease"])
def test_of_several_that_want_a_lock_one_gets_it(tmp_path: Path, left: str) -> None:
    path = tmp_path / "run"
    if left != "nothing":
        elsewhere(path)
    contenders = [quick(path) for _ in range(4)]

    def contend(lock: Lock) -> None:
        with suppress(LookmError):
            lock.acquire()

    threads = [threading.Thread(target=contend, args=(lock,)) for lock in contenders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lock.held for lock in contenders) == [False, False, False, True]
    for contender in contenders:
        contender.release()
    assert not path.with_name("run.lease").exists()


@pytest.mark.usefixtures("no_system_lock")
def test_a_holder_gives_signs_of_life_while_it_holds(tmp_path: Path) -> None:
    lock = quick(tmp_path / "run")
    lock.acquire()
    time.sleep(3 * QUICK["length"])
    with pytest.raises(LookmError, match=f"is being computed by process {os.getpid()} on"):
        quick(tmp_path / "run").acquire()
    lock.check()
    lock.release()


def test_a_holder_that_stood_still_too_long_may_not_write_any_more(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "run")
    folder._lock = quick(tmp_path / "runs" / ".locks" / "run")
    with folder.hold():
        folder.append("A", [SampleRecord(sample_id=1, digest="d")])
        elsewhere(tmp_path / "runs" / ".locks" / "run")
        time.sleep(0.3)
        with pytest.raises(LookmError, match="was taken over by process 4711 on node7"):
            folder.append("A", [SampleRecord(sample_id=2, digest="d")])
    assert list(RunFolder(folder.path).records("A")) == ["1"]
    assert (tmp_path / "runs" / ".locks" / "run.lease").exists(), "the other one's file is left alone"


def test_a_run_that_is_being_computed_is_not_computed_twice(settings_of: MakeSettings) -> None:
    settings = settings_of(f"datasets={NEEDLE}")
    folder = RunFolder(settings.folder)
    with (
        folder.hold(),
        pytest.raises(LookmError, match=f"{settings.run} is being computed by process {os.getpid()} on"),
    ):
        run(settings)
    assert run(settings).computed == 4


def test_runs_held_together_are_held_in_one_order_and_all_or_none(tmp_path: Path) -> None:
    one, two = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    with hold_all([two, one]):
        assert one._lock.held
        assert two._lock.held
        with pytest.raises(LookmError, match="a is being computed"):
            RunFolder(tmp_path / "a").append("A", [SampleRecord(sample_id=1, digest="d")])
    other = RunFolder(tmp_path / "b")
    with other.hold():
        with pytest.raises(LookmError, match="b is being computed"), hold_all([one, two]):
            pass
        assert not one._lock.held


def test_a_reader_beside_a_writer_changes_nothing(tmp_path: Path) -> None:
    writer = RunFolder(tmp_path / "run")
    with writer.hold():
        writer.append("A", [SampleRecord(sample_id=1, digest="d")])
        path = tmp_path / "run" / "A" / "samples.jsonl"
        with path.open("a") as stream:
            stream.write('{"sample_id": 2, ')  # a line on its way to the disk
        before = path.stat().st_ino, path.read_bytes()
        assert list(RunFolder(tmp_path / "run").records("A")) == ["1"]
        assert (path.stat().st_ino, path.read_bytes()) == before


def test_what_helpers_added_is_absorbed_once_and_an_answer_beats_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "run"
    main, helpers = RunFolder(path), [RunFolder(path, shard=shard) for shard in (0, 1)]
    with main.hold():
        main.append("A", [SampleRecord(sample_id=1, digest="d", answer="yes")])
        helpers[0].append("A", [SampleRecord(sample_id=2, digest="d", answer="two")])
        helpers[1].append("A", [SampleRecord(sample_id=1, digest="d", error="no image")])
        helpers[1].append("B", [SampleRecord(sample_id=3, digest="d")])
        assert {file.name for file in path.glob("A/*")} == {"samples.jsonl", "samples.0.jsonl", "samples.1.jsonl"}
        main.absorb()
        main.absorb()
    assert {file.relative_to(path).as_posix() for file in path.glob("*/*")} == {"A/samples.jsonl", "B/samples.jsonl"}
    records = RunFolder(path).records("A")
    assert {name: record.answer for name, record in records.items()} == {"1": "yes", "2": "two"}


def test_a_killed_runs_helpers_are_absorbed_by_the_next_one_but_not_while_they_live(tmp_path: Path) -> None:
    path = tmp_path / "run"
    helper = RunFolder(path, shard=3)
    with helper.hold():
        helper.append("A", [SampleRecord(sample_id=2, digest="d")])
        (path / "A" / "samples.3.jsonl").open("a").write('{"torn')
        with pytest.raises(LookmError, match="is being computed by"), RunFolder(path).hold():
            pass
    with RunFolder(path).hold():
        pass
    assert (path / "A" / "samples.jsonl").read_text() == SampleRecord(sample_id=2, digest="d").to_line()
