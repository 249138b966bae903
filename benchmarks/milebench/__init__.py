"""MileBench (arXiv 2404.18532): taxonomy, annotations, prompts and scores, as the original makes them."""

from benchmarks.milebench.annotation import check_annotation, read_annotation, read_annotation_file
from benchmarks.milebench.benchmark import milebench_benchmark
from benchmarks.milebench.combined import read_variant
from benchmarks.milebench.prompts import PLACEHOLDER, Prompt, build_prompt
from benchmarks.milebench.results import read_predictions, write_evaluation
from benchmarks.milebench.scoring import PROTOCOLS, image_quantity_level, score_predictions
from benchmarks.milebench.taxonomy import (
    ADVERSARIAL_DATASETS,
    DATASETS,
    PAPER_COLUMNS,
    TASKS,
    Tree,
    datasets_of,
    mean_weights,
)

__all__ = [
    "ADVERSARIAL_DATASETS",
    "DATASETS",
    "PAPER_COLUMNS",
    "PLACEHOLDER",
    "PROTOCOLS",
    "TASKS",
    "Prompt",
    "Tree",
    "build_prompt",
    "check_annotation",
    "datasets_of",
    "image_quantity_level",
    "mean_weights",
    "milebench_benchmark",
    "read_annotation",
    "read_annotation_file",
    "read_predictions",
    "read_variant",
    "score_predictions",
    "write_evaluation",
]
