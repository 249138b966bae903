"""`scripts.soak` sees memory that is lost and bytes that differ, and says so in its exit status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation.settings import Settings
from tests.reliability import soak
from tests.reliability.residence import Residence, resident_bytes
from tests.reliability.soak import Kills, Load, draw, kill_often, load
from tests.runner.conftest import MakeSettings, settings_of
from tests.runner.small_benchmark import NEEDLE

__all__ = ["settings_of"]


def test_growth_is_the_slope_of_the_second_half() -> None:
    residence = Residence()
    residence.samples = [(float(second), 900 if second < 10 else 1000 + 5 * second) for second in range(20)]
    assert residence.growth() == pytest.approx(5)
    residence.samples = [(0.0, 1000)]
    assert residence.growth() == 0


def test_memory_that_is_held_is_seen() -> None:
    before = resident_bytes()
    held = bytearray(64 * 2**20)
    assert resident_bytes() - before > 60 * 2**20
    assert resident_bytes("VmHWM") >= resident_bytes()
    del held


def test_rounds_do_the_same_work_in_folders_of_their_own(settings_of: MakeSettings, tmp_path: Path) -> None:
    result = load(settings_of(f"datasets={NEEDLE}"), 2, every=0.05)
    assert (result.samples, result.failed) == (8, 0)
    assert len(list((tmp_path / "runs").glob("[12]/*/run.json"))) == 2
    assert min(size for _, size in result.memory) > 0
    draw(result, tmp_path / "a" / "b.png", "title")
    assert (tmp_path / "a" / "b.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_run_that_ends_otherwise_than_an_undisturbed_one_is_told(
    settings_of: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(f"datasets={NEEDLE}", "limit=1")
    assert kill_often(settings, tmp_path / "one", 1).differences == ()
    real = soak.difference

    def spoilt(one: Path, other: Path) -> str:
        (one / "extra").write_text("")
        return real(one, other)

    monkeypatch.setattr(soak, "difference", spoilt)
    result = kill_often(settings, tmp_path / "two", 1)
    assert result.differences[0].startswith("run 0: extra is only in ")
    assert result.kills >= 1


@pytest.mark.parametrize(
    ("growth", "failed", "differences", "status"),
    [(0.0, 0, (), 0), (1e6, 0, (), 1), (0.0, 1, (), 1), (0.0, 0, ("x",), 1)],
)
def test_the_exit_status_tells(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    growth: float,
    failed: int,
    differences: tuple[str, ...],
    status: int,
) -> None:
    def loaded(settings: Settings, rounds: int) -> Load:
        return Load(96, failed, 1.0, ((0.0, 2**20), (1.0, 2**20)), growth)

    def killed(settings: Settings, folder: Path, kills: int, *, seed: int, report: Callable[[str], None]) -> Kills:
        return Kills(kills, 1, differences)

    monkeypatch.setattr(soak, "load", loaded)
    monkeypatch.setattr(soak, "kill_often", killed)
    assert soak.main(["--samples", "96", "--kills", "3", "--output", str(tmp_path)]) == status
    written: dict[str, Any] = {path.name: path for path in tmp_path.iterdir()}
    assert set(written) == {"soak.json", "soak.png", "kills.json"}
    assert json.loads(written["kills.json"].read_text())["kills"] == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to do"),
        (["--samples", "5"], "--samples is 5"),
        (["--kills", "1", "strategy=h2o,tp"], "2 runs are"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {told}")
    assert error.count("\n") == 1
