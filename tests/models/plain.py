"""The backbones' arithmetic written out plainly on dictionaries of tensors, to compare the models with. Float64."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def double(weights: Weights) -> Weights:
    return {name: tensor.double() for name, tensor in weights.items()}


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def layer_norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def rms_norm(weight: Tensor, x: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def heads_of(x: Tensor, n_heads: int) -> Tensor:
    """(L, H·D) → (H, L, D)."""
    return x.reshape(x.shape[0], n_heads, -1).transpose(0, 1)


def attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None) -> Tensor:
    """(H, L, D) each → (L, H·D); `allowed` (L, L) bool."""
    groups = q.shape[0] // k.shape[0]
    k, v = (x.repeat_interleave(groups, dim=0) for x in (k, v))
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """x (H, L, D) turned by angles (L, D/2): component d goes with d + D/2."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rope_angles(positions: Tensor, size: int, theta: float) -> Tensor:
    """(L,) → (L, D/2)."""
    frequencies = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    return positions.double()[:, None] * frequencies


def llama_logits(
    weights: Weights, prefix: str, head: str, x: Tensor, *, heads: int, kv_heads: int, eps: float,
    theta: float = 10000.0, angles: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Logits (L, V) of the embeddings x (L, C) of one prompt; `angles` (L, D/2) replace the usual rotary ones."""
    length, size = x.shape[0], x.shape[1] // heads
    angles = rope_angles(torch.arange(length), size, theta) if angles is None else angles
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    layer = 0
    while f"{prefix}layers.{layer}.mlp.up_proj.weight" in weights:
        name = f"{prefix}layers.{layer}"
        y = rms_norm(weights[f"{name}.input_layernorm.weight"], x, eps)
        q = rotated(heads_of(linear(weights, f"{name}.self_attn.q_proj", y), heads), angles)
        k = rotated(heads_of(linear(weights, f"{name}.self_attn.k_proj", y), kv_heads), angles)
        v = heads_of(linear(weights, f"{name}.self_attn.v_proj", y), kv_heads)
        x = x + linear(weights, f"{name}.self_attn.o_proj", attention(q, k, v, causal))
        y = rms_norm(weights[f"{name}.post_attention_layernorm.weight"], x, eps)
        gate = linear(weights, f"{name}.mlp.gate_proj", y)
        x = x + linear(weights, f"{name}.mlp.down_proj", F.silu(gate) * linear(weights, f"{name}.mlp.up_proj", y))
        layer += 1
    return rms_norm(weights[f"{prefix}norm.weight"], x, eps) @ weights[f"{head}.weight"].T


def patches(weights: Weights, name: str, pixels: Tensor) -> Tensor:
    """(3, S, S) → (patches, C), row by row."""
    kernel = weights[f"{name}.weight"]
    size = kernel.shape[-1]
    cut = pixels.unfold(1, size, size).unfold(2, size, size)  # (3, rows, columns, size, size)
    flat = cut.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    x = flat @ kernel.flatten(1).T
    return x + weights[f"{name}.bias"] if f"{name}.bias" in weights else x


def clip_features(weights: Weights, prefix: str, pixels: Tensor, *, heads: int, layers: int) -> Tensor:
    """Hidden states (patches, C) after so many layers, without CLS, of pixels (3, S, S)."""
    x = patches(weights, f"{prefix}embeddings.patch_embedding", pixels)
    x = torch.cat([weights[f"{prefix}embeddings.class_embedding"][None], x])
    x = layer_norm(weights, f"{prefix}pre_layrnorm", x + weights[f"{prefix}embeddings.position_embedding.weight"], 1e-5)
    for layer in range(layers):
        x = vit_layer(weights, f"{prefix}encoder.layers.{layer}", x, heads, 1e-5, quick_gelu)
    return x[1:]


def vit_layer(weights: Weights, name: str, x: Tensor, heads: int, eps: float, act) -> Tensor:  # type: ignore[no-untyped-def]
    """One layer of CLIP or SigLIP."""
    y = layer_norm(weights, f"{name}.layer_norm1", x, eps)
    q, k, v = (heads_of(linear(weights, f"{name}.self_attn.{part}_proj", y), heads) for part in "qkv")
    x = x + linear(weights, f"{name}.self_attn.out_proj", attention(q, k, v))
    y = layer_norm(weights, f"{name}.layer_norm2", x, eps)
    return x + linear(weights, f"{name}.mlp.fc2", act(linear(weights, f"{name}.mlp.fc1", y)))
