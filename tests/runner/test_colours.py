import io
import re

import pytest

from benchmarks.colours import BOLD, DIM, RED, painted

TABLE = """
tiny · mini · h2o

task    n  failed  score %
──────────────────────────
T-1    40       0     45.0
T-2    38       2     50.0
mean   78       2     47.5

Results: results/runs/x"""
COMPARISON = "title\n\nstrategy   T-1  mean\n───────\nh2o       45.0  45.0\nchance    25.0  25.0\n\nResults: x"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.parametrize("table", [TABLE, COMPARISON, "no table at all", ""])
def test_only_colour_is_added(table: str) -> None:
    assert re.sub(r"\x1b\[\d+m", "", painted(table, Terminal())) == table


def test_title_head_and_mean_stand_out_failures_are_red() -> None:
    lines = painted(TABLE, Terminal()).split("\n")
    assert lines[1].startswith(BOLD)
    assert lines[3].startswith(BOLD)
    assert lines[4].startswith(DIM)
    assert RED not in lines[5]
    assert f"{RED}     2" in lines[6]
    assert lines[7].startswith(BOLD)
    assert RED in lines[7]
    assert lines[9] == "Results: results/runs/x"
    assert painted(COMPARISON, Terminal()).split("\n")[5].startswith(DIM)


def test_files_and_those_who_want_none_get_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    assert painted(TABLE, io.StringIO()) == TABLE
    monkeypatch.setenv("TERM", "dumb")
    assert painted(TABLE, Terminal()) == TABLE
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted(TABLE, Terminal()) == TABLE
