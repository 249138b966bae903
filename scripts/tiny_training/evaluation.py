"""How well the model answers while it is trained: held-out prompts in memory, one question each."""

import torch
from transformers import LlavaForConditionalGeneration

from benchmarks.mini.pictures import digit_pool
from benchmarks.mini.sample import Request
from benchmarks.mini.seeds import training_rng
from benchmarks.mini.taxonomy import TASKS, MiniTask

from .batches import FEWEST_FRAMES, FILMS, collate
from .examples import IGNORED, Vocabulary, example

VALIDATION_SEED = 999_999_999  # neither the evaluation's range nor a seed anybody trains with


def validation_accuracy(
    model: LlavaForConditionalGeneration, vocabulary: Vocabulary, images: int, prompts: int = 40
) -> dict[str, float]:
    """For each task the share of prompts whose whole answer is predicted right, token by token (teacher forced)."""
    model.eval()
    scores = {task.task: task_accuracy(model, vocabulary, task, images, prompts) for task in TASKS}
    model.train()
    return scores


@torch.no_grad()
def task_accuracy(
    model: LlavaForConditionalGeneration, vocabulary: Vocabulary, task: MiniTask, images: int, prompts: int
) -> float:
    """The same for one task, with evaluation digits."""
    rng = training_rng(VALIDATION_SEED, TASKS.index(task))
    images = max(images, FEWEST_FRAMES) if task.task in FILMS else images
    examples = []
    for case in range(prompts):
        sample = task.make(Request(rng, digit_pool("eval"), images=images, case=case))
        examples.append(example(task, sample, vocabulary))
    batch = collate(examples, vocabulary.pad)
    hidden = model.model(input_ids=batch.ids, pixel_values=batch.pixels, use_cache=False).last_hidden_state
    right = (model.lm_head(hidden).argmax(-1) == batch.targets) | (batch.targets == IGNORED)  # (B, L)
    return float(right.all(-1).float().mean())
