"""Compares what lmms-eval wrote with what run.py wrote; started by scripts/check_lmms_eval.sh, in its environment."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.mini.taxonomy import TASKS

WORK = Path(sys.argv[1])
PREFIX = "milebench_mini_"


def results(folder: str) -> dict[str, Any]:
    """lmms-eval's result file."""
    (file,) = (WORK / folder).rglob("*_results.json")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def samples(folder: str, task: str) -> list[dict[str, Any]]:
    """The samples that it logged of a task, in the documents' order."""
    (file,) = (WORK / folder).rglob(f"*_samples_{task}.jsonl")
    return sorted(map(json.loads, file.read_text(encoding="utf-8").splitlines()), key=lambda one: int(one["doc_id"]))


def check(condition: bool, message: str) -> None:
    """Ends with one line where the condition does not hold; `python -O` must not turn that off."""
    if not condition:
        sys.exit(f"error: {message}")


def compare_with_run(strategy: str) -> str:
    """Scores of datasets and groups, answers and bytes of samples."""
    theirs = results(f"mini-{strategy}")
    (run,) = (WORK / "results" / "runs").glob(f"tiny-mini-{strategy}-*")
    ours = json.loads((run / "run.json").read_text(encoding="utf-8"))["results"]
    compared = 0
    for dataset, scores in ours.items():
        for protocol in ("official", "repaired"):
            there = theirs["results"][PREFIX + dataset][f"{protocol},none"]
            check(
                there == scores[protocol],
                f"{strategy} {dataset} {protocol}: {there!r} here, {scores[protocol]!r} there",
            )
        records = [json.loads(line) for line in (run / dataset / "samples.jsonl").read_text("utf-8").splitlines()]
        logged = samples(f"mini-{strategy}", PREFIX + dataset)
        check(len(logged) == len(records) == 6, f"{dataset}: {len(logged)} samples here, {len(records)} there")
        for own, record in zip(logged, records, strict=True):
            check(own["filtered_resps"] == record["answer"], f"{dataset}/{record['sample_id']}: another answer")
            counts = own["token_counts"][0]
            for name in ("kept_bytes", "full_bytes"):
                check(counts[name] == record[name], f"{dataset}/{record['sample_id']}: other {name}")
            compared += 1
    for group in ("", "_T", "_S", "_N", "_I", "_T-1"):
        scores = [ours[task.dataset]["official"] for task in TASKS if task.task.startswith(group.removeprefix("_"))]
        there = theirs["results"][f"milebench_mini{group}"]["official,none"]
        mean = sum(1 / len(scores) * score for score in scores)  # as benchmarks.milebench.taxonomy adds
        check(there == mean, f"{strategy}, group {group}: {there!r} here, {mean!r} there")
    budget = theirs["throughput"]["avg_byte_budget"]
    check(0.15 < budget < 0.25, f"{strategy}: a byte budget of {budget}")
    return f"{strategy}: {compared} samples, every score, answer and byte as run.py's; {budget:.1%} of the bytes kept"


for name in ("tp_pmerge", "snapkv"):
    print(" ", compare_with_run(name))
(interleaved,), (film,), (rounds,) = (samples("trial", f"trial_{name}") for name in ("interleaved", "film", "rounds"))
check(interleaved["right"] == 1.0, f"the tiny model answers {interleaved['filtered_resps']!r}, not 7")
check(film["filtered_resps"] == interleaved["filtered_resps"], "frames of a video are not read as images are")
check(len(rounds["filtered_resps"]) == 2, f"two rounds gave {rounds['filtered_resps']!r}")
check(
    rounds["filtered_resps"][0] == interleaved["filtered_resps"], "the first round is not what the question alone gives"
)
(simple,) = samples("choices", "trial_interleaved")
check(simple["filtered_resps"] == interleaved["filtered_resps"], "--force_simple reads another question")
check(results("choices")["results"]["trial_choices"]["acc,none"] == 1.0, "the right choice is not the likeliest")
print("  interleaved, frames, rounds, choices: as they should be")
