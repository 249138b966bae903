"""A disk that is full, or may not be written to: one line, nothing half-written, and the run goes on later."""

import errno
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import files
from benchmarks.evaluation import store
from benchmarks.evaluation.records import SampleRecord, read_records
from benchmarks.evaluation.run import run
from benchmarks.evaluation.store import RunFolder
from benchmarks.evaluation.verify import difference
from lookm.errors import LookmError
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import NEEDLE

ONLY_NEEDLE = f"datasets={NEEDLE}"


def record(number: int, answer: str = "yes") -> SampleRecord:
    return SampleRecord(sample_id=number, digest="d", answer=answer)


def leftovers(folder: Path) -> list[str]:
    """Unfinished files."""
    return [path.name for path in folder.rglob("*.tmp")]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = Path(tempfile.mkdtemp())
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        folder.rmdir()
        pytest.skip("a file system of 64 KiB can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond this size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_disk_that_fills_up_whole_lines_stay_and_the_line_says_so(small_disk: Path) -> None:
    folder = RunFolder(small_disk / "runs" / "run")
    folder.describe(name="run")
    written = 0

    def fill() -> None:
        nonlocal written
        for written in range(100):
            folder.append("A", [record(written, "x" * 3000)])

    with pytest.raises(LookmError) as error:
        fill()
    assert "samples.jsonl cannot be written to: the disk is full; free some space" in str(error.value)
    assert "\n" not in str(error.value)
    assert written > 5
    lines = (folder.path / "A" / "samples.jsonl").read_bytes()
    assert lines == "".join(record(number, "x" * 3000).to_line() for number in range(written)).encode()
    with pytest.raises(LookmError, match="run cannot be written to: the disk is full"):
        folder.describe(note="y" * 30000)
    assert RunFolder(folder.path).about["name"] == "run"
    assert leftovers(small_disk) == []


def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(
    settings_of: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of("model.batch_size=1", ONLY_NEEDLE)
    reference = replace(settings, results_dir=tmp_path / "undisturbed")
    run(reference)
    path = settings.folder / NEEDLE / "samples.jsonl"
    sizes: list[int] = []

    def fill_up(path: Path, text: str) -> None:
        sizes.append(path.stat().st_size if path.exists() else 0)
        with largest_file(sizes[-1] + 100) if len(sizes) == 3 else nullcontext():
            files.append_text(path, text)

    monkeypatch.setattr(store, "append_text", fill_up)
    with pytest.raises(LookmError, match=r"samples\.jsonl cannot be written to: the file would be larger"):
        run(settings)
    assert path.stat().st_size == sizes[2], "the 100 bytes that were written are taken back"
    assert len(read_records(path)) == 2
    monkeypatch.undo()
    assert run(settings).computed == 2
    assert difference(settings.folder, reference.folder) == ""


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_results_that_cannot_be_written_leave_the_old_ones(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    settings = settings_of(ONLY_NEEDLE, "model.batch_size=1")
    run(replace(settings, limit=2))
    before = (settings.folder / NEEDLE / "pred.json").read_bytes()
    real = os.fsync

    def refuse(handle: int) -> None:
        if "pred.json" in Path(f"/proc/self/fd/{handle}").readlink().name:
            raise OSError(code, os.strerror(code))
        real(handle)

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(LookmError, match="cannot be written to: ") as error:
        run(settings)
    assert "\n" not in str(error.value)
    assert (settings.folder / NEEDLE / "pred.json").read_bytes() == before
    assert leftovers(settings.folder) == []
    assert RunFolder(settings.folder).about["state"] == "stopped by an error"
    monkeypatch.undo()
    assert run(settings).computed == 0, "the samples themselves were safe"
    assert len(read_records(settings.folder / NEEDLE / "samples.jsonl")) == 4


def test_a_read_only_results_folder_is_said_in_one_line(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(ONLY_NEEDLE)
    real = Path.mkdir

    def read_only(path: Path, *arguments: object, **named: object) -> None:
        if settings.results_dir in (path, *path.parents):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(LookmError, match=r"cannot be written to: it is read-only; choose another results_dir"):
        run(settings)
    assert not settings.results_dir.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users of another kind")
def test_a_results_folder_without_permission_is_said_in_one_line(settings_of: MakeSettings) -> None:
    results = Path(tempfile.mkdtemp())
    settings = replace(settings_of(ONLY_NEEDLE), results_dir=results)
    settings.benchmark.prepare()
    results.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(LookmError, match=r"cannot be written to: permission denied; choose another results_dir"):
            RunFolder(settings.folder).describe(name="run")
    finally:
        if user == 0:
            os.seteuid(0)
        results.chmod(0o755)
    assert list(results.iterdir()) == []
    results.rmdir()


def test_a_results_folder_below_a_file_is_said_in_one_line(settings_of: MakeSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = replace(settings_of(ONLY_NEEDLE), results_dir=tmp_path / "file" / "runs")
    with pytest.raises(LookmError, match=r"cannot be written to: Not a directory; see results_dir"):
        run(settings)
