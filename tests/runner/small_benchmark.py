"""Three datasets of four samples in MileBench's format: needles, choices and ROUGE-L."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.benchmark import Benchmark, DatasetInfo

SAMPLES = 4
NEEDLE, CHOICE, ROUGE = "SmallNeedleInAHaystack", "SmallOrder", "SmallDiff"
DATASETS = (
    DatasetInfo(CHOICE, "T-1", "accuracy", SAMPLES, 0.5),
    DatasetInfo(ROUGE, "S-3", "rouge_l", SAMPLES, 0.1),
    DatasetInfo(NEEDLE, "N-1", "accuracy", SAMPLES, 0.0),
)


def small_benchmark(root: str | Path, label: str = "small benchmark") -> Benchmark:
    """Written when it is not there."""
    folder = Path(root)

    def prepare() -> None:
        for info in DATASETS:
            if not (folder / info.dataset).is_dir():
                write_dataset(folder, info)

    return Benchmark(name="small", label=label, root=folder, datasets=DATASETS, prepare=prepare)


def write_dataset(root: Path, info: DatasetInfo) -> None:
    """Sample k has k + 1 noisy images of 16 × 16 pixels."""
    random = np.random.default_rng(len(info.dataset))
    images = root / info.dataset / "images"
    images.mkdir(parents=True)
    data = []
    for number in range(SAMPLES):
        paths = [f"{number}_{k}.png" for k in range(number + 1)]
        for path in paths:
            Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(images / path)
        placeholders = " ".join(f"{{image#{k + 1}}}" for k in range(len(paths)))
        instance: dict[str, object] = {"context": f"Frames {placeholders} what is it?", "images_path": paths}
        if info.dataset == CHOICE:
            instance["choice_list"] = ["left", "right"]
        data.append(
            {
                "sample_id": number,
                "task_instruction_id": 0,
                "response": "left" if info.dataset == CHOICE else "the ball",
                "image_quantity_level": "Few",
                "task_instance": instance,
            }
        )
    kind = "multi-choice" if info.dataset == CHOICE else "open-ended"
    meta = {"task_instruction": ["Look."], "question_type": kind}
    annotation = {"meta_data": meta, "data": data}
    (root / info.dataset / f"{info.dataset}.json").write_text(json.dumps(annotation), encoding="utf-8")
