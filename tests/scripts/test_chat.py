"""`lookm chat`: pictures are encoded once, and what is typed or piped is answered from what was kept."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import chat as room
from lookm.conversation import Conversation
from scripts import chat

Chat = Callable[..., tuple[int, str, str]]
QUICK = ["device=cpu", "benchmark.samples=1"]
TOLD = ["--context", "Find the fact.\n The badge of ada 7.<ImageHere><ImageHere> The badge of bob 2."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all chats of this file stand, with two pictures."""
    path = tmp_path_factory.mktemp("chat")
    for name in ("red", "blue"):
        Image.new("RGB", (40, 30), name).save(path / f"{name}.png")
    return path


@pytest.fixture
def talk(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Chat:
    """Runs the command with lines on stdin; gives its exit status, stdout and stderr."""

    def run(*arguments: str, lines: Sequence[str] = ()) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        quick = [] if "model=llava7b" in arguments else QUICK
        status = chat.main([*quick, *arguments])
        return status, *capfd.readouterr()

    return run


def test_without_pictures_a_student_gets_a_context_and_questions_that_have_an_answer(talk: Chat) -> None:
    status, said, _ = talk("strategy=full", lines=["What is the badge of uma?", "", "What is the badge of iris?"])
    assert status == 0
    head, _, answers = said.partition("\nAsk, or /kept")
    assert "The badge of uma 0." in head
    assert "  What is the badge of uma?   (0)\n  What is the badge of iris?   (5)\n" in head
    assert "(100.0 %)" in head
    picture = head.partition("The pictures are ")[2].partition(" …;")[0]
    assert Path(picture).is_file()
    assert answers.splitlines()[2:] == [
        *("> What is the badge of uma?", "the badge of uma 0", ""),
        *("> What is the badge of iris?", "the badge of iris 5"),
    ]


def test_what_is_kept_of_each_picture_adds_up(talk: Chat) -> None:
    status, said, _ = talk(
        "strategy=tp_pmerge", "budget=40", "red.png", "blue.png", *TOLD, lines=["/kept", "/quit", "x"]
    )
    assert status == 0
    assert said.count("image red.png") == said.count("image blue.png") == 2
    rows = [line.split() for line in said.splitlines() if line.startswith(("text", "image "))][:3]
    assert [row[-3] for row in rows][1:] == ["16", "16"]
    total = float(said.partition("Kept: ")[2].split()[0])
    assert sum(float(row[-2]) for row in rows) == pytest.approx(total, abs=0.2)
    assert rows[0][-1] == "100.0"  # the text prior
    assert "> x" not in said


def test_a_saved_context_is_asked_without_its_pictures_and_kept_tokens_are_drawn(talk: Chat, folder: Path) -> None:
    asked = "What is the badge of bob?"
    status, first, _ = talk(
        "red.png", "blue.png", *TOLD, lines=["/kept kept.png", "/save it.cache", asked, "/fresh", asked]
    )
    assert status == 0
    assert Image.open(folder / "kept.png").width > 500
    answers = [line for line in first.splitlines() if line.startswith("the badge")]
    assert answers == ["the badge of bob 2"] * 2
    status, again, _ = talk("strategy=h2o", "--load", "it.cache", lines=[asked])
    assert status == 0
    assert "tp_pmerge, budget 20.0 %" in again  # the strategy that made it
    assert "image red.png" not in again
    assert again.splitlines()[-1] == answers[0]
    status, _, complaint = talk("--load", "it.cache", lines=["/kept kept.png"])
    assert (status, complaint) == (
        2,
        "error: which tokens are kept is not in the file that was loaded; give the pictures again\n",
    )


def test_a_shortened_prompt_has_no_table_of_what_heads_keep(talk: Chat) -> None:
    status, said, _ = talk("strategy=fastv", "red.png", "blue.png", *TOLD, lines=["What is the badge of ada?", "/kept"])
    assert status == 2
    assert "image red.png" not in said
    assert said.splitlines()[-3].startswith("the badge of")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch.png"], "image nosuch.png is missing"),
        (["no.png"], "image no.png cannot be read: it is no image of a known format"),
        (["model=nope"], "unknown model 'nope'; choose one of "),
        (["model=llava7b"], "model=llava7b needs something to talk about"),
        (["strategy=h2o,tp"], "2 runs are asked for"),
        (["--sample", "X-9"], "unknown sample 'X-9'"),
        (["--sample", "I-1"], "MiniGPR1200/0 is not asked in words"),
        (["--sample", "N-1", "red.png"], "sample and pictures are given"),
        (["--load", "nosuch.cache"], "nosuch.cache is no cache that lookm has written"),
        (["red.png", *TOLD], "the context has 2 times <ImageHere> and 1 images; give one image for each"),
        (["--context", " "], "the context is empty"),
    ],
)
def test_wrong_input_is_one_line(talk: Chat, folder: Path, arguments: list[str], message: str) -> None:
    (folder / "no.png").write_text("no picture")
    status, said, complaint = talk(*arguments)
    assert (status, said) == (2, "")
    assert complaint.startswith(f"error: {message}")
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("What? " * 1000, "the conversation has "),
        ("/nope", "unknown command /nope; /kept: "),
        ("/save", "/save needs the name of a file"),
        ("/save no/where", "no/where cannot be written"),
        ("/kept kept.txt", "kept.txt is no picture"),
    ],
)
def test_what_a_pipe_cannot_ask_ends_the_chat(talk: Chat, line: str, message: str) -> None:
    status, said, complaint = talk("red.png", "blue.png", *TOLD, lines=[line, "What is the badge of ada?"])
    assert status == 2
    assert f"error: {message}" in complaint
    assert "the badge of ada 7" not in said


def test_on_a_terminal_the_next_question_is_read_until_ctrl_d(talk: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["/nope", "stop", "What is the badge of ada?"])
    ask = Conversation.ask

    def typing(prompt: str) -> str:
        line = next(typed, None)
        if line is None:
            raise EOFError
        return line

    def interrupted(conversation: Conversation, question: str, streamer: Any) -> str:
        if question == "stop":
            raise KeyboardInterrupt
        return ask(conversation, question, streamer)

    monkeypatch.setattr(room, "_on_a_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", typing)
    monkeypatch.setattr(Conversation, "ask", interrupted)
    status, said, _ = talk("red.png", "blue.png", *TOLD)
    assert status == 0
    assert "error: unknown command /nope" in said
    assert "stopped; the question is forgotten" in said
    assert said.splitlines()[-1] == "the badge of ada 7"


def test_a_reader_that_has_gone_ends_the_chat_as_it_ends_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Gone())
    with pytest.raises(BrokenPipeError):  # which `benchmarks.guard` knows
        room._Console().print("text")
