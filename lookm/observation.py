"""Looking on while a model encodes one prompt: each layer's queries, keys and values, and nothing compressed."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from lookm.context import filling, led
from lookm.decoder import decoder_of
from lookm.errors import LookmError
from lookm.generation import is_looked_at
from lookm.layer import Layer
from lookm.prompt import Prompt, image_token_ids, read_prompt
from lookm.prompt_cache import DecodeAttention, PromptCache


def observe_prefill(model: PreTrainedModel, inputs: Mapping[str, Tensor], observe: Callable[[Layer], None]) -> None:
    """Encode one prompt and show each layer to `observe`; a layer is forgotten before the next one is encoded.

    The model is as before afterwards, also after an exception.

    Args:
        inputs: what `generate` would get, with `input_ids` (1, L); padding on the left is left out.
        observe: called once a layer, in order.

    Raises:
        LookmError: for more than one prompt, a model that cannot be looked at, or inside `look_once`.
    """
    if is_looked_at(model):
        raise LookmError("inside look_once a prompt is compressed, not observed; look on before or after it")
    prompt = read_prompt(inputs.get("input_ids"), None, inputs.get("attention_mask"), image_token_ids(model.config))
    if len(prompt.starts) != 1:
        raise LookmError(f"{len(prompt.starts)} prompts were given; one is observed at a time")
    cache = _ObservedCache(prompt, model.config, observe)
    with led(decoder_of(model)), filling(cache), torch.inference_mode():
        model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)


class _ObservedCache(PromptCache):
    """Shows each layer and empties it."""

    def __init__(self, prompt: Prompt, config: PretrainedConfig, observe: Callable[[Layer], None]) -> None:
        super().__init__(prompt, config, DynamicLayer)
        self.observe = observe

    def layer_is_compressed(self, layer_index: int) -> bool:
        return False

    def attend(
        self,
        module: nn.Module,
        layer_index: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        attention: DecodeAttention | None = None,
    ) -> Tensor:
        raise LookmError("an observed prompt is encoded only; nothing is decoded after it")

    def compress(self, layer_index: int, rows: Sequence[Layer]) -> None:
        self.observe(rows[0])
        layer = self.layers[layer_index]
        assert isinstance(layer, DynamicLayer)
        layer.keys, layer.values, layer.is_initialized = None, None, False  # reset() may overwrite what was shown
