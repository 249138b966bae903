"""Which positions of a prompt each layer and head keeps under each strategy: what pictures of a cache are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lookm.cache import LookOnceCache
from lookm.compressed_layer import CompressedLayer
from lookm.compression import compress_many, joined_needs, observe, refuse_shortening
from lookm.errors import LookmError
from lookm.layer import Layer
from lookm.observation import observe_prefill
from lookm.strategy import Strategy


@dataclass(frozen=True)
class KeptPositions:
    """What one strategy kept of one prompt.

    Attributes:
        strategy: which.
        is_image: (L,) bool, on the CPU.
        layers: for each layer and in it each head the kept positions, (K_h,) int64 ascending, on the CPU.
    """

    strategy: Strategy
    is_image: Tensor
    layers: tuple[Sequence[Tensor], ...]

    def mask(self, layer: int) -> Tensor:
        """Whether each head of a layer kept each position, (Hkv, L) bool."""
        heads = self.layers[layer]
        mask = torch.zeros(len(heads), self.is_image.numel(), dtype=torch.bool)
        for head, positions in zip(mask, heads, strict=True):
            head[positions] = True
        return mask

    def share(self) -> Tensor:
        """Of all heads of all layers, the share that kept each position, (L,) float32."""
        return torch.cat([self.mask(layer) for layer in range(len(self.layers))]).float().mean(0)


def kept_positions(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], strategies: Sequence[Strategy]
) -> list[KeptPositions]:
    """Encode one prompt once and see what each strategy keeps of it.

    Args:
        inputs: what `generate` would get, with `input_ids` (1, L).

    Returns:
        One result a strategy, in their order.

    Raises:
        LookmError: as of `observe_prefill`.
        BudgetError: if a layer keeps something else than a strategy promises.

    Example:
        >>> (kept,) = kept_positions(model, inputs, [load_strategy("tp_pmerge")])
        >>> kept.share()[kept.is_image]  # how many of the heads kept each image token
    """
    refuse_shortening(strategies)
    layers: list[list[Sequence[Tensor]]] = [[] for _ in strategies]
    late = [index for index, strategy in enumerate(strategies) if strategy.whole_prompt]
    early = [index for index, strategy in enumerate(strategies) if not strategy.whole_prompt]
    held: list[Layer] = []
    is_image = torch.zeros(0, dtype=torch.bool)

    def note(indices: list[int], layer: Layer) -> None:
        rows = compress_many([strategies[index] for index in indices], layer)
        for index, row in zip(indices, rows, strict=True):
            layers[index].append(row.head_positions())

    def look(layer: Layer) -> None:
        nonlocal is_image
        is_image = layer.is_image.cpu()
        layer.make_statistics(joined_needs(strategies, layer.is_image))
        note(early, layer)
        if late:
            observe([strategies[index] for index in late], layer)
            layer.forget_queries()
            held.append(layer)

    observe_prefill(model, inputs, look)
    for layer in held:
        note(late, layer)
    return [KeptPositions(s, is_image, tuple(found)) for s, found in zip(strategies, layers, strict=True)]


def positions_in(cache: LookOnceCache) -> KeptPositions:
    """What a cache of one prompt holds of it, as it was noted while the prompt was encoded.

    Args:
        cache: of a session with `notes_positions`; layers that stay as they are (a window, a state) are left out.

    Raises:
        LookmError: for several prompts, a prompt that was shortened, or where nothing was noted: the cache was loaded.
    """
    refuse_shortening([cache.strategy])
    layers = [layer.positions for layer in cache.layers if isinstance(layer, CompressedLayer)]
    if len(cache.whole_prompt.starts) != 1 or None in layers:
        raise LookmError("which positions a cache holds is known of one prompt, encoded with session.notes_positions")
    return KeptPositions(cache.strategy, cache.row_is_image[0].cpu(), tuple(rows[0] for rows in layers if rows))


def image_spans(is_image: Tensor, n_images: int) -> list[range]:
    """Where the tokens of each image lie.

    Images that touch each other are told apart by their number: then all must have equally many tokens.

    Args:
        is_image: (L,) bool.

    Raises:
        LookmError: if the image tokens cannot be divided among so many images.
    """
    positions = is_image.nonzero().squeeze(1).tolist()
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][-1] + 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    if len(runs) == n_images:
        return [range(run[0], run[-1] + 1) for run in runs]
    size = len(positions) // max(1, n_images)
    parts = [run[k : k + size] for run in runs for k in range(0, len(run), max(1, size))]
    if len(parts) != n_images or any(len(part) != size for part in parts):
        raise LookmError(f"{len(positions)} image tokens in {len(runs)} runs cannot be told apart as {n_images} images")
    return [range(part[0], part[-1] + 1) for part in parts]


def token_grid(tokens: int, aspect: float = 1.0) -> tuple[int, int]:
    """Rows and columns of an image's tokens: the factors of their number that fit its width / height best.

    Example:
        >>> token_grid(576)
        (24, 24)
    """
    pairs = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    return min(pairs, key=lambda pair: max(pair[1] / pair[0] / aspect, aspect * pair[0] / pair[1]))
