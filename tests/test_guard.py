"""How commands end: quietly when nobody reads any more, in one line for wrong input."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.guard import Status, guarded
from lookm.errors import LookmError

ROOT = Path(__file__).parents[1]
BUILD_TOOLS = {"linked_environment.py"}


def test_every_command_is_guarded() -> None:
    for path in sorted((ROOT / "scripts").glob("*.py")):
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        for function in functions:
            if function.name == "main" and path.name not in BUILD_TOOLS:
                assert [ast.unparse(decorator) for decorator in function.decorator_list] == ["guarded"], path.name


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
@pytest.mark.parametrize(
    "words",
    [
        ["run.py", "--help"],
        ["run.py", "alpha1=2"],
        ["run.py", "limit=1", "datasets=[MiniSpot-the-Diff]"],
        ["run.py", "-m", "strategy=full,h2o", "limit=1", "datasets=[MiniSpot-the-Diff]"],
        ["-m", "scripts.command", "--help"],
        ["-m", "scripts.plan", "limit=1", "datasets=[MiniSpot-the-Diff]"],
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_a_reader_that_has_gone_ends_a_command_without_a_word(words: list[str], closed: str, tmp_path: Path) -> None:
    folders = [f"results_dir={tmp_path}", f"data_dir={tmp_path}"] if "--help" not in words else []
    reader, writer = os.pipe()
    os.close(reader)
    other = {"stdout": "stderr", "stderr": "stdout"}[closed]
    streams = {closed: writer, other: subprocess.PIPE}
    done = subprocess.run([sys.executable, *words, *folders], cwd=ROOT, text=True, **streams)  # type: ignore[call-overload]
    os.close(writer)
    said_elsewhere = getattr(done, other)
    assert "Error" not in said_elsewhere
    assert "Traceback" not in said_elsewhere
    refused = "alpha1=2" in words
    assert done.returncode in (
        (Status.WRONG_INPUT, Status.READER_GONE) if refused else (Status.DONE, Status.READER_GONE)
    )


def test_wrong_input_and_ctrl_c_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    @guarded
    def command(error: BaseException) -> int:
        raise error

    assert command(LookmError("limit is 0; it must be above")) == Status.WRONG_INPUT
    assert capsys.readouterr().err == "error: limit is 0; it must be above\n"
    assert command(KeyboardInterrupt()) == Status.INTERRUPTED
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_another_pipe_that_breaks_is_an_error() -> None:
    program = (
        "from benchmarks.guard import guarded\n@guarded\ndef main():\n    raise BrokenPipeError('a worker')\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "BrokenPipeError: a worker" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["run.py", "limit=1", "results_dir={name}"],
        ["-m", "scripts.score", "{name}", "--annotations", "x"],
        ["-m", "scripts.tables", "table1", "--results", "{name}"],
    ],
    ids=lambda words: words[-2] if isinstance(words, list) else words,
)
def test_a_name_that_no_file_system_takes_is_one_short_line(words: list[str], tmp_path: Path) -> None:
    name = str(tmp_path / ("a" * 5000))
    command = [sys.executable, *(word.format(name=name) for word in words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == Status.WRONG_INPUT
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith("…: File name too long\n")
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 200


def test_other_errors_of_files_come_through() -> None:
    @guarded
    def command() -> int:
        raise PermissionError(13, "Permission denied", "x")

    with pytest.raises(PermissionError):
        command()
