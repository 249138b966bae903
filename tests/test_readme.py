"""README is short, its code runs as it stands, its numbers are those of `results/`, its commands exist."""

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.composition import compose_jobs
from scripts import command

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
HYDRA = ("run", "sweep", "plan")


def blocks(language: str, text: str = README) -> list[str]:
    """Fenced code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands() -> list[list[str]]:
    """The commands `lookm …` of README's and the docs' shell blocks, as words."""
    pages = [README, *((path).read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]
    text = [block.replace("\\\n", " ") for page in pages for block in blocks("bash", page)]  # continued lines are one
    lines = [line for block in text for line in block.splitlines()]
    parsed = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in parsed if words[:1] == ["lookm"]]


def test_readme_is_short() -> None:
    assert len(README.split()) <= 1300


def test_the_library_use_runs_and_prints_what_readme_shows(capsys: pytest.CaptureFixture[str]) -> None:
    (library,) = blocks("python")
    exec(library, {})
    shown = [line for block in blocks("text") for line in block.splitlines()]
    printed = capsys.readouterr().out.splitlines()
    assert printed
    for line in printed:
        assert line in shown or "time" in line, line


def test_the_leaderboard_is_the_committed_table() -> None:
    table = (ROOT / "results" / "mini" / "table.txt").read_text(encoding="utf-8")
    shown = next(block for block in blocks("text") if block.startswith("$ python run.py -m strategy=full"))
    assert shown.strip() == table.split("\n\nResults:")[0].strip()


def test_what_readme_says_of_the_leaderboard_stands_in_it() -> None:
    said = README.split("What it shows here:")[1].split("\n## ")[0]
    table = (ROOT / "results" / "mini" / "table.txt").read_text(encoding="utf-8")
    numbers = re.findall(r"\d+\.\d", said)
    assert len(numbers) >= 3
    assert not [number for number in numbers if number not in table.split()]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_shown_command_takes_its_arguments(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    name, *arguments = words
    if name in HYDRA:
        assert compose_jobs([word for word in arguments if not word.startswith("-")])
        return
    with pytest.raises(SystemExit) as end:
        command.main([name, *(["model"] if arguments[:1] == ["model"] else []), "--help"])
    assert not end.value.code
    told = capsys.readouterr().out
    for word in arguments:
        if word.startswith("--"):
            assert word in told, f"lookm {name} has no option {word}"


def test_what_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\(([\w/.-]+)\)", README):
        assert (ROOT / target).exists(), target
