"""MileBench (arXiv 2404.18532): taxonomy, annotations, prompts and scores, as the original makes them."""

from benchmarks.milebench.annotation import read_annotation
from benchmarks.milebench.benchmark import milebench_benchmark
from benchmarks.milebench.prompts import PLACEHOLDER, build_prompt
from benchmarks.milebench.results import write_evaluation
from benchmarks.milebench.scoring import PROTOCOLS, image_quantity_level, score_predictions
from benchmarks.milebench.taxonomy import DATASETS, PAPER_COLUMNS, TASKS, Tree, datasets_of, mean_weights

__all__ = [
    "DATASETS",
    "PAPER_COLUMNS",
    "PLACEHOLDER",
    "PROTOCOLS",
    "TASKS",
    "Tree",
    "build_prompt",
    "datasets_of",
    "image_quantity_level",
    "mean_weights",
    "milebench_benchmark",
    "read_annotation",
    "score_predictions",
    "write_evaluation",
]
