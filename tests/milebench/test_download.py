"""MileBench is fetched once, checked, gone on with where it broke off, and placed complete or not at all."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from benchmarks.download import hub as hub_module
from benchmarks.milebench import DATASETS, archives, download, read_annotation
from benchmarks.milebench.download import ARCHIVES, REPOSITORY, download_milebench
from lookm.errors import LookmError
from scripts.download import main
from tests.local_hub import CHUNK, LocalHub, point_library_at, serving
from tests.milebench.original_layout import annotation_of, pack, write_milebench

NAMES = [info.dataset for info in DATASETS]
FIRST = ARCHIVES[0]


FEW = ("ALFRED", "DocVQA", "GPR1200", "IEdit", "TQA", "nuscenes")  # one for each archive


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six datasets in six archives."""
    folder = tmp_path_factory.mktemp("original")
    write_milebench(folder / "MileBench", FEW)
    pack(folder / "MileBench", folder / "archives")
    return folder / "archives"


@pytest.fixture
def hub(packed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with serving() as local:
        local.repositories[f"datasets/{REPOSITORY}"] = {
            "README.md": b"# MileBench",
            **{name: (packed / name).read_bytes() for name in ARCHIVES},
        }
        point_library_at(local, monkeypatch)
        yield local


def files_below(root: Path) -> dict[str, bytes]:
    """Every dataset file below a folder, by its path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.relative_to(root).as_posix().startswith(".")
    }


def test_all_29_datasets_arrive_as_they_were_packed(hub: LocalHub, tmp_path: Path) -> None:
    write_milebench(tmp_path / "MileBench")
    pack(tmp_path / "MileBench", tmp_path / "archives")
    for name in ARCHIVES:
        hub.repositories[f"datasets/{REPOSITORY}"][name] = (tmp_path / "archives" / name).read_bytes()
    root = tmp_path / "root"
    assert download_milebench(root) == list(ARCHIVES)
    assert files_below(root) == files_below(tmp_path / "MileBench")
    for name in NAMES:
        assert read_annotation(root, name) == annotation_of(name)
    assert not (root / ".extracting").exists()


def test_a_second_call_asks_nobody_for_anything(
    hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["milebench", "--root", str(tmp_path)]) == 0
    capsys.readouterr()
    asked, written = len(hub.requests), {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(["milebench", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"MileBench is complete in {tmp_path}; nothing to do\n"
    assert len(hub.requests) == asked
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written


def test_a_download_that_broke_off_goes_on_where_it_was(hub: LocalHub, tmp_path: Path) -> None:
    hub.cut[FIRST] = (0, 99)
    with pytest.raises(LookmError, match=rf"0 bytes of .* of {FIRST} have arrived; the same command goes on") as error:
        download_milebench(tmp_path)
    assert "\n" not in str(error.value)
    hub.cut[FIRST] = (4 * CHUNK + CHUNK // 2, 2)
    hub.cut[ARCHIVES[1]] = (0, 99)
    with pytest.raises(LookmError, match="have arrived"):
        download_milebench(tmp_path)
    assert hub.downloads(FIRST)[-3:] == [None, f"bytes={4 * CHUNK}-", f"bytes={8 * CHUNK}-"]
    hub.cut.clear()
    before = len(hub.downloads(FIRST))
    assert download_milebench(tmp_path) == list(ARCHIVES[1:])
    assert len(hub.downloads(FIRST)) == before


def test_another_process_goes_on_with_the_part_that_arrived(hub: LocalHub, packed: Path, tmp_path: Path) -> None:
    content = hub.repositories[f"datasets/{REPOSITORY}"][FIRST]
    hub.cut[FIRST] = (0, 99)
    with pytest.raises(LookmError):
        download_milebench(tmp_path)
    part = next((tmp_path / ".archives").glob("*.part"))
    part.write_bytes(content[:1000])
    hub.cut.clear()
    download_milebench(tmp_path)
    assert hub.downloads(FIRST)[-1] == "bytes=1000-"
    assert files_below(tmp_path) == files_below(packed.parent / "MileBench")


def test_a_part_that_is_too_long_or_wrong_is_thrown_away(hub: LocalHub, tmp_path: Path) -> None:
    content = hub.repositories[f"datasets/{REPOSITORY}"][FIRST]
    hub.cut[FIRST] = (0, 99)
    with pytest.raises(LookmError):
        download_milebench(tmp_path)
    hub.cut.clear()
    part = next((tmp_path / ".archives").glob("*.part"))
    part.write_bytes(bytes(1000))
    with pytest.raises(LookmError, match=f"{FIRST} arrived with another checksum than sha256:.*thrown away"):
        download_milebench(tmp_path)
    assert not list((tmp_path / ".archives").iterdir())
    part.write_bytes(content + b"more")
    assert len(download_milebench(tmp_path)) == 6


def test_a_wrong_checksum_is_refused_and_nothing_of_the_archive_is_kept(hub: LocalHub, tmp_path: Path) -> None:
    hub.corrupt.add(FIRST)
    with pytest.raises(LookmError, match=f"{FIRST} arrived with another checksum"):
        download_milebench(tmp_path)
    assert files_below(tmp_path) == {}
    assert not list((tmp_path / ".archives").glob(f"{FIRST}*"))
    hub.corrupt.clear()
    assert len(download_milebench(tmp_path)) == 6


def test_too_little_room_is_said_before_anything_is_fetched(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [len(content) for name, content in hub.repositories[f"datasets/{REPOSITORY}"].items() if name in ARCHIVES]
    needed = sum(sizes) + int(1.1 * sum(sizes))

    class Usage:
        free = needed - 1

    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(LookmError, match=r"MileBench \(6 archives.* needs .*B, but the disk of .* free; make room"):
        download_milebench(tmp_path)
    assert not any(hub.downloads(name) for name in ARCHIVES)

    monkeypatch.setattr(download, "_GROWTH", -1.0)  # as if nothing of what is extracted had been foreseen
    Usage.free = 0
    with pytest.raises(LookmError, match=rf"extracting {FIRST} needs"):
        download_milebench(tmp_path)
    assert files_below(tmp_path) == {}


def test_an_interrupted_extraction_is_gone_on_with(
    hub: LocalHub, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, copied = archives.shutil.copyfileobj, []

    def interrupted(source: object, target: object, length: int) -> None:
        if len(copied) == 8:
            raise KeyboardInterrupt
        copied.append(target)
        real(source, target, length)  # type: ignore[arg-type]

    monkeypatch.setattr(archives.shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_milebench(tmp_path)
    monkeypatch.setattr(archives.shutil, "copyfileobj", real)
    (temporary,) = (tmp_path / ".extracting").glob(f"{FIRST}.*")
    done = {path: path.stat().st_mtime_ns for path in temporary.rglob("*.png")}
    assert len(done) >= 2
    assert files_below(tmp_path) == {}, "half a dataset is nowhere to be seen"
    assert len(download_milebench(tmp_path)) == 6
    moved = {tmp_path / path.relative_to(temporary): written for path, written in done.items()}
    assert {path: path.stat().st_mtime_ns for path in moved} == moved
    assert files_below(tmp_path) == files_below(packed.parent / "MileBench")
    assert hub.downloads(FIRST) == [None]


def test_a_dataset_that_was_deleted_is_extracted_again_from_the_archive_that_is_there(
    hub: LocalHub, tmp_path: Path
) -> None:
    download_milebench(tmp_path)
    (tmp_path / "GPR1200").rename(tmp_path.parent / "gone")
    asked = {name: len(hub.downloads(name)) for name in ARCHIVES}
    assert len(download_milebench(tmp_path)) == 1
    assert (tmp_path / "GPR1200" / "GPR1200.json").is_file()
    assert {name: len(hub.downloads(name)) for name in ARCHIVES} == asked


def test_archives_are_deleted_where_that_is_asked_for(hub: LocalHub, tmp_path: Path) -> None:
    assert main(["milebench", "--root", str(tmp_path / "data"), "--archives", str(tmp_path), "--delete-archives"]) == 0
    assert not list(tmp_path.glob("*.gz"))
    assert main(["milebench", "--root", str(tmp_path / "data")]) == 0


def test_a_folder_of_somebody_else_is_left_alone(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "TQA").mkdir()
    (tmp_path / "TQA" / "mine.txt").write_text("mine")
    with pytest.raises(LookmError, match="holds TQA, which this command did not extract; move that away"):
        download_milebench(tmp_path)
    assert files_below(tmp_path) == {"TQA/mine.txt": b"mine"}
    assert not hub.requests


def test_archives_from_elsewhere_need_no_hub(packed: Path, tmp_path: Path) -> None:
    assert main(["milebench", "--root", str(tmp_path), "--from", str(packed), "--delete-archives"]) == 0
    assert sorted(path.name for path in packed.iterdir()) == sorted(ARCHIVES), "they are not ours to delete"
    assert files_below(tmp_path) == files_below(packed.parent / "MileBench")


def test_two_at_once_do_not_get_in_each_others_way(packed: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".download.lock"), pytest.raises(LookmError, match="another process is downloading into"):
        download_milebench(tmp_path, source=packed)


def test_an_archive_the_repository_lacks_is_named(hub: LocalHub, tmp_path: Path) -> None:
    del hub.repositories[f"datasets/{REPOSITORY}"][ARCHIVES[3]]
    with pytest.raises(LookmError, match=f"has no {ARCHIVES[3]} at c0ffee"):
        download_milebench(tmp_path)
    with pytest.raises(LookmError, match="no such revision"):
        download_milebench(tmp_path, revision="v9")


@pytest.mark.parametrize("offline", ["1", ""])
def test_without_a_network_one_line_says_so(tmp_path: Path, offline: str) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": offline}
    command = [sys.executable, "-m", "scripts.download", "milebench", "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    line = "HF_HUB_OFFLINE is set" if offline else "cannot be fetched from http://127.0.0.1:9"
    assert line in done.stderr
    assert "--from FOLDER" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_endpoint_of_the_environment_is_asked(hub: LocalHub, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "scripts.download", "milebench", "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"MileBench is in {tmp_path} (6 archives extracted now)")
    assert done.stderr.count("\n") == 12, "a line for each archive fetched and extracted, and no bars"


def test_a_bar_is_only_drawn_for_what_takes_long() -> None:
    with hub_module.progress(10, "little") as bar:
        assert bar.disable
