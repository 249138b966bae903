"""Claims about the one table and its renderers."""

import csv
import io
import re

import pytest

from benchmarks.tables.table import (
    FORMATS,
    Row,
    Table,
    Text,
    as_csv,
    as_html,
    as_latex,
    as_markdown,
    as_text,
    joined,
    percent,
    show,
    signed,
    size,
)

TABLE = Table(
    "a title",
    ("task", "n", "score %"),
    (
        Row(("T-1", "40", Text("45.0", "▼", "down"))),
        Row(("T-2", Text("8", style="bad"), Text("50.0", "", "best")), begins_block=True),
        Row(("mean", "48", "47.5"), "foot"),
    ),
    ("A sentence.", "Fill it: lookm run strategy=h2o " + "x" * 200),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def on_terminal(table: Table) -> str:
    stream = Terminal()
    show(table, stream)
    return stream.getvalue()


def test_plain_text_puts_digits_below_digits_and_marks_beside_them() -> None:
    lines = as_text(TABLE).splitlines()
    assert lines[:8] == [
        "a title", "",
        "task   n  score %",
        "─" * 18,
        "T-1   40     45.0▼",
        "",
        "T-2    8     50.0",
        "mean  48     47.5",
    ]  # fmt: skip


def test_commands_and_long_words_of_notes_stay_in_one_line() -> None:
    lines = as_text(TABLE).splitlines()
    assert lines[-3:-1] == ["A sentence.", "Fill it:"]
    assert lines[-1].startswith("  lookm run strategy=h2o xxx")


def test_a_terminal_gets_the_same_cells_with_colours_and_never_folds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Table("t", tuple(f"column {k}" for k in range(40)), (Row(tuple("12.3" for _ in range(40))),))
    for table in (TABLE, wide):
        text = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(table))
        lines = [re.split(r"  +", line.strip()) for line in text.splitlines() if line.strip()]
        assert list(table.head) in lines
        for row in table.rows:
            assert [cell if isinstance(cell, str) else cell.text + cell.mark for cell in row.cells] in lines
    shown = on_terminal(TABLE)
    marked, plain = (line for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines() if line.startswith("T-"))
    assert marked.index("45.0") == plain.index("50.0"), "digits stand below digits"
    assert "\x1b[1ma title" in shown
    assert "\x1b[32m" not in shown
    assert "\x1b[31m" in shown
    assert "strategy=h2o " + "x" * 200 in shown


def test_files_and_those_who_want_none_get_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    show(TABLE, stream)
    assert stream.getvalue() == as_text(TABLE) + "\n"
    for name, value in (("TERM", "dumb"), ("NO_COLOR", "1")):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            assert on_terminal(TABLE) == as_text(TABLE) + "\n"


def test_every_format_has_every_cell() -> None:
    for name in FORMATS:
        text = joined([TABLE, TABLE], name)
        for word in ("T-1", "45.0", "T-2", "50.0", "mean", "47.5", "score"):
            assert text.count(word) >= 2, (name, word)
    assert "| T-2 | 8 | **50.0** |" in as_markdown(TABLE)
    assert r"T-2 & 8 & \textbf{50.0} \\" in as_latex(TABLE)
    assert r"score \% \\" in as_latex(TABLE)
    assert '<td class="down">45.0▼</td>' in as_html(TABLE)
    assert list(csv.reader(io.StringIO(as_csv(TABLE))))[1] == ["T-1", "40", "45.0▼"]


def test_html_escapes_and_markdown_keeps_its_columns() -> None:
    table = Table("<b>", ("a|b",), (Row(("<i>|",)),))
    assert "<b>" not in as_html(table)
    assert "<i>" not in as_html(table)
    assert as_markdown(Table("", ("a",), (Row(("x|y",)),))).endswith(r"| x\|y |")


def test_records_take_the_place_of_lines_in_csv_and_tables_share_one_head() -> None:
    table = Table("", ("x",), (Row(("1",)),), records=({"score": 100 / 3, "mark": None, "yes": True},))
    assert as_csv(table) == "score,mark,yes\n33.3333,,true"
    assert joined([table, table], "csv").count("score") == 1


@pytest.mark.parametrize(
    ("n_bytes", "shown"), [(None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (3 * 2**30, "3.00 GiB")]
)
def test_sizes_are_short(n_bytes: float | None, shown: str) -> None:
    assert size(n_bytes) == shown


def test_numbers_have_one_decimal_and_zero_no_sign_unless_it_is_an_interval_s_end() -> None:
    assert (percent(0.12345), percent(1), percent(None)) == ("12.3", "100.0", "–")
    assert [signed(value) for value in (3.14, -3.14, 0.04, -0.04, None)] == ["+3.1", "−3.1", "0.0", "0.0", "–"]
    assert [signed(value, end=True) for value in (0.04, -0.04, 0.0)] == ["+0.0", "−0.0", "0.0"]
