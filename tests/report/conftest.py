"""Made-up runs of the small benchmark: two budgets, three strategies, one failure, one answer that attacks the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.runner.small_benchmark import CHOICE, NEEDLE
from tests.tables.run_folders import STRATEGIES, Folders

ATTACK = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\"> & <b>bold"
LOOKM = {"_target_": "lookm.method.LookM", "text_prior": "union", "merge": "pivotal", "semantics": "paper"}


def strategy(name: str, alpha1: float = 0.1, alpha2: float = 0.1, **fields: object) -> dict[str, Any]:
    if name == "full":
        return {**STRATEGIES["full"], "name": name}
    known = LOOKM if name == "tp_pmerge" else {**STRATEGIES["h2o"], "semantics": "paper"}
    return {**known, "name": name, "alpha1": alpha1, "alpha2": alpha2, **fields}


def truth(dataset: str, number: int) -> str:
    return "left" if dataset == CHOICE else "the ball"


def half_right(dataset: str, number: int) -> str:
    return truth(dataset, number) if number % 2 else "nothing"


def attacking(dataset: str, number: int) -> str | None:
    if dataset == NEEDLE and number == 3:
        return None
    return ATTACK if (dataset, number) == (CHOICE, 1) else half_right(dataset, number)


def questions(dataset: str, number: int) -> Mapping[str, Any]:
    pictures = tuple(f"{dataset}/images/{number}_{k}.png" for k in range(number + 1))
    return {"question": f"{ATTACK} Frames {'<ImageHere>' * len(pictures)} what?", "images": pictures}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with five runs."""
    folders = Folders(tmp_path_factory.mktemp("report"))
    folders.write("full", strategy("full"), truth, fields=questions)
    for budget in (0.1, 0.2):
        fields = {
            "kept_tokens": (int(80 * budget),) * 2,
            "realised_budget": 2 * budget,
            "kept_bytes": int(800 * budget),
        }
        for name, answer in (("h2o", attacking), ("tp_pmerge", half_right)):
            folders.write(
                f"{name}-{budget}",
                strategy(name, budget, budget),
                answer,
                fields=lambda dataset, number, fields=fields: {**questions(dataset, number), **fields},
            )
    return folders.results
