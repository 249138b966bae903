"""The story in half a minute: full, h2o and tp_pmerge from one prefill of each prompt, and what came out in words.

    python -m scripts.demo                    # tiny model, MileBench-mini, on the CPU or the GPU
    python -m scripts.demo limit=5 alpha1=0.05

Runs `run.py -m strategy=full,h2o,tp_pmerge` and reads the sentence's numbers from the run folders.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from math import isnan

from benchmarks.evaluation.summary import Summary
from benchmarks.guard import guarded

from .leaderboard import run_strategies

STRATEGIES = ("full", "h2o", "tp_pmerge")
TOLD = "N-1"
"""The task whose fact is told in words among the images."""


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: that of the sweep, or 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for run.py, such as limit=5 or device=cpu")
    overrides = parser.parse_args(argv).overrides
    status, summaries = run_strategies(STRATEGIES, overrides)
    if summaries:
        print(f"\n{story(*summaries)}")
    return status


def story(full: Summary, h2o: Summary, lookm: Summary) -> str:
    """What the three runs say, in a sentence each for the told fact and for the mean of all tasks."""
    runs = (full, h2o, lookm)
    percent = [f"{100 * run.mean.budget:.0f} %" if run.mean.budget is not None else "–" for run in runs]
    told = [run.rows[TOLD].score for run in runs if TOLD in run.rows]
    means = [run.mean.score for run in runs]
    place = f"{full.model_label}, {full.settings.benchmark.label}, {full.mean.n} prompts encoded once for all three"
    kept = f"kept {percent[1]} (h2o) and {percent[2]} (tp_pmerge) of the cache's tokens"
    lines = [f"{place}; {kept}."]
    if told and not any(map(isnan, told)):
        lines.append(f"A fact told in words among images ({TOLD}) is then still answered right: {_three(told)}.")
    if not any(map(isnan, means)):
        lines.append(f"Over all {len(full.rows)} tasks the score is {_three(means)}.")
    return "\n".join([*lines, "None of this is a result of the paper's models or of MileBench."])


def _three(scores: Sequence[float]) -> str:
    full, h2o, lookm = (100 * score for score in scores)
    return f"{h2o:.1f} % with h2o and {lookm:.1f} % with tp_pmerge, against {full:.1f} % with the full cache"


if __name__ == "__main__":
    sys.exit(main())
