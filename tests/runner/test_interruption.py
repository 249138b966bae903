"""The first signal lets the batch in work end, the second stops at once; the files are right after both."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.evaluation import generate
from benchmarks.evaluation.interruption import Interrupted, Interruption, replace_handlers, restore_handlers, stop_now
from benchmarks.evaluation.run import run, run_group
from lookm.sweep import SweepRow
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import CHOICE

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As the command line installs them; what was there comes back."""
    replaced = replace_handlers(stop_now)
    yield
    restore_handlers(replaced)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_the_first_signal_is_noted_and_the_second_stops(
    number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), number)
        assert interruption.requested
        assert capsys.readouterr().err == "\nstopping after this batch; once more stops at once\n"
        with pytest.raises(Interrupted) as stopped:
            os.kill(os.getpid(), number)
    assert stopped.value.status == status
    with pytest.raises(Interrupted):
        interruption.check()


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_outside_of_the_loop_a_signal_stops_at_once(number: signal.Signals, status: int) -> None:
    with pytest.raises(Interrupted) as stopped:
        os.kill(os.getpid(), number)
    assert stopped.value.status == status


def test_a_handler_of_somebody_else_is_left_alone() -> None:
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
        assert not interruption.requested
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize("signals", [1, 2])
def test_what_was_finished_is_there_and_the_next_call_goes_on(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    settings = [settings_of("strategy=h2o"), settings_of("strategy=tp")]
    real = generate.generate_sweep

    def interrupted(*arguments: Any, **named: Any) -> list[SweepRow]:
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **named)

    monkeypatch.setattr(generate, "generate_sweep", interrupted)
    with pytest.raises(Interrupted):
        run_group(settings)
    for one in settings:
        assert json.loads((one.folder / "run.json").read_text())["state"] == "interrupted"
        finished = one.folder / CHOICE / "pred.json"
        assert finished.exists() == (signals == 1), "the first batch was saved, or stopped in its middle"
        if signals == 1:
            assert len(json.loads(finished.read_text())) == 3
    monkeypatch.setattr(generate, "generate_sweep", real)
    assert [run(one).computed for one in settings] == [9 if signals == 1 else 12] * 2
