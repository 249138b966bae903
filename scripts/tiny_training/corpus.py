"""The texts from which the tiny model's tokenizer learns its words."""

from benchmarks.mini.pictures import digit_pool
from benchmarks.mini.sample import IMAGE, Request
from benchmarks.mini.seeds import training_rng
from benchmarks.mini.taxonomy import TASKS
from benchmarks.mini.words import NAMES

PROMPTS_PER_TASK = 60


def corpus(seed: int) -> list[str]:
    """Prompts and answers of all tasks without their pictures, and every name once."""
    rng, texts = training_rng(seed, 0), [" ".join(NAMES)]
    for task in TASKS:
        for case in range(PROMPTS_PER_TASK):
            sample = task.make(Request(rng, digit_pool("train"), images=12, questions=4, case=case))
            texts.append(f"{task.instruction}\n{sample.context}".replace(IMAGE, ""))
            for question in sample.questions:
                texts += [question.prompt().replace(IMAGE, ""), question.sentence]
    return texts
