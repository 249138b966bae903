"""MileBench's folders and archives as the original has them, with three small samples in each of the 29 datasets."""

import copy
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.milebench import DATASETS
from benchmarks.milebench.download import ARCHIVES
from benchmarks.milebench.taxonomy import ADVERSARIAL_DATASETS

SAMPLES = 3
OPEN_ENDED = {info.dataset for info in DATASETS if info.metric == "rouge_l" or "Needle" in info.dataset} | {"MMCoQA"}


def annotation_of(dataset: str) -> dict[str, Any]:
    """Sample k has k + 1 images; the fields are those of MileBench."""
    data = []
    for number in range(SAMPLES):
        paths = [f"{number}/{k}.png" for k in range(number + 1)]
        places = "".join(f"{{{'table' if k % 2 else 'image'}#{k + 1}}}, then " for k in range(number + 1))
        instance: dict[str, Any] = {
            "context": f"Frames {places}which of {dataset}?",
            "images_path": paths,
            "combined_1_images": [f"{number}-0.jpg"],
        }
        if dataset not in OPEN_ENDED:
            instance["choice_list"] = ["the left one", "the right one", "both"]
        data.append(
            {
                "sample_id": number if dataset != "TQA" else str(number),
                "task_instruction_id": number % 2,
                "response": "the left one",
                "image_quantity_level": "Few",
                "task_instance": instance,
            }
        )
    meta = {
        "dataset": dataset,
        "task_instruction": ["Look at the images. ", "Read and answer. "],
        "question_type": "open-ended" if dataset in OPEN_ENDED else "multi-choice",
    }
    return {"meta_data": meta, "data": data}


def adversarial(annotation: dict[str, Any]) -> dict[str, Any]:
    """The same questions with their choices the other way round, or another answer."""
    changed = copy.deepcopy(annotation)
    for sample in changed["data"]:
        if "choice_list" in sample["task_instance"]:
            sample["task_instance"]["choice_list"].reverse()
        else:
            sample["response"] = "the one on the left"
    return changed


def write_dataset(root: Path, dataset: str, annotation: dict[str, Any], *, combined: bool = True) -> None:
    """Writes `<root>/<dataset>/` with noisy pictures of 8 × 8 pixels and, combined, of 16 × 16."""
    folder = root / dataset
    folder.mkdir(parents=True)
    random = np.random.default_rng(len(dataset))
    for sample in annotation["data"]:
        instance = sample["task_instance"]
        pictures = [folder / "images" / path for path in instance["images_path"]]
        if combined:
            pictures += [folder / "combined_1_images" / path for path in instance.get("combined_1_images", [])]
        for path in pictures:
            path.parent.mkdir(parents=True, exist_ok=True)
            side = 8 if "images" in path.parts else 16
            Image.fromarray(random.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
    dump(folder / f"{dataset}.json", annotation)


def dump(path: Path, annotation: dict[str, Any]) -> None:
    path.write_text(json.dumps(annotation, ensure_ascii=False, indent=4), encoding="utf-8")


def write_milebench(root: Path, datasets: Sequence[str] = tuple(info.dataset for info in DATASETS)) -> None:
    """Writes the datasets, with `-adv` annotations where MileBench has them."""
    with_adversarial = {info.dataset for info in ADVERSARIAL_DATASETS}
    for dataset in datasets:
        annotation = annotation_of(dataset)
        write_dataset(root, dataset, annotation)
        if dataset in with_adversarial:
            dump(root / dataset / f"{dataset}-adv.json", adversarial(annotation))


def pack(folder: Path, target: Path, *, wrapper: str = "") -> None:
    """Packs the datasets of a folder into six archives, as they are on the hub."""
    target.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in folder.iterdir())
    for number, archive in enumerate(ARCHIVES):
        with tarfile.open(target / archive, "w:gz", compresslevel=1) as stream:
            for name in names[number :: len(ARCHIVES)]:
                stream.add(folder / name, arcname=f"{wrapper}{name}")
