"""The plugin for lmms-eval: every backbone under every strategy as its model `lookm`, and our benchmarks as its tasks.

lmms-eval finds `manifest` through the entry point `lmms_eval.models`. Only `manifest` and `model` import lmms-eval;
Hydra is not needed, since lmms-eval and Hydra ask for different versions of antlr4.
"""

from typing import Any


def manifest() -> Any:
    """What lmms-eval's registry wants: the model's name and where its two classes are."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="lookm",
        chat_class_path="benchmarks.lmms_eval.model.LookM",
        simple_class_path="benchmarks.lmms_eval.model.SimpleLookM",
    )
