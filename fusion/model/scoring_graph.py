"""The models as scoring runs them: the same results as their own calls, with fewer products and passes over memory.

The tokens of a batch are concatenated, so the wide projections see no padding; only projected tokens, a sixteenth as
long or shorter, are padded. The specified model does more:

- Inputs arrive centred, because copying them into the batch subtracts the mean; the division is applied to the kernels.
- Static tokens pass through no product of the attention except the two with the keys and the answers: with
  q = x Wq + bq and k = y Wk + bk, a head's q . k is x . (k Wqᵀ) + k . bq, and its part of the output is weights (v Wo).
  Therefore Wk Wqᵀ and Wv Wo are multiplied once per batch, and only motion tokens, of which there are fewer, pass
  through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import tensorflow as tf
from keras import ops

from fusion.clips.tokens import ClipTokens
from fusion.errors import InputError
from fusion.model.bilinear import BilinearPersonalityModel
from fusion.model.inputs import KINDS
from fusion.model.kinds import PersonalityModel
from fusion.model.layers import CrossAttention, masked_mean, time_encoding
from fusion.model.model import CompletePersonalityModel

ALIGNMENT_BYTES = 64  # TensorFlow shares memory that begins at a multiple of this, and copies any other
_MASKED_LOGIT = -1e9  # a logit that the softmax turns into 0


def lay_out(clips: Sequence[ClipTokens], model: PersonalityModel) -> dict[str, tf.Tensor]:
    """Concatenate the tokens of clips, centred by the statistics of a specified model.

    Args:
        clips: one or more.

    Returns:
        For static and dynamic each: "static" float32 [R, Ds], the R tokens of all clips; "static_row" int32 [B, Ts],
        the row of each clip's tokens, 0 in the padding; "static_mask" bool [B, Ts], and "static_time_s" float32
        [B, Ts].

    Raises:
        ValueError: there is no clip.
        InputError: the length of the tokens differs from the model's.
    """
    if not len(clips):
        raise ValueError("a batch needs at least one clip")
    batch: dict[str, tf.Tensor] = {}
    for kind in KINDS:
        dim, centre = getattr(model, f"{kind}_dim"), np.float32(0)
        if isinstance(model, CompletePersonalityModel):
            centre = getattr(model.cross_attention, f"{kind}_standardisation").mean
        vectors = [getattr(clip, kind) for clip in clips]
        lengths = np.array([len(rows) for rows in vectors])
        ends = np.cumsum(lengths)
        flat = _aligned((ends[-1], dim))
        for clip, rows, end in zip(clips, vectors, ends.tolist(), strict=True):
            if rows.shape[1] != dim:
                raise InputError(f"{clip.video_id}: {kind} tokens must have {dim} numbers, got {rows.shape[1]}")
            np.subtract(rows, centre, out=flat[end - len(rows) : end])
        place = np.arange(lengths.max())
        mask = place < lengths[:, None]
        time_s = np.zeros(mask.shape, np.float32)
        time_s[mask] = np.concatenate([getattr(clip, f"{kind}_time_s") for clip in clips])
        rows = np.where(mask, (ends - lengths)[:, None] + place, 0).astype(np.int32)
        tokens = tf.experimental.dlpack.from_dlpack(flat.__dlpack__())  # shares the memory
        batch |= {kind: tokens, f"{kind}_row": rows, f"{kind}_mask": mask, f"{kind}_time_s": time_s}
    return batch


def compiled(model: PersonalityModel) -> tf.types.experimental.PolymorphicFunction:
    """Return the graph that scores the batches of `lay_out`, in all shapes; it is built once per model."""
    if model.scoring_function is None:
        scores = _specified_scores if isinstance(model, CompletePersonalityModel) else _bilinear_scores
        model.scoring_function = tf.function(partial(scores, model), input_signature=[_signature(model)])
    return model.scoring_function


def _signature(model: PersonalityModel) -> dict[str, tf.TensorSpec]:
    """Return the shapes and types of the batches that `lay_out` makes."""
    return {
        name: tf.TensorSpec(shape, dtype)
        for kind in KINDS
        for name, shape, dtype in (
            (kind, (None, getattr(model, f"{kind}_dim")), tf.float32),
            (f"{kind}_row", (None, None), tf.int32),
            (f"{kind}_mask", (None, None), tf.bool),
            (f"{kind}_time_s", (None, None), tf.float32),
        )
    }


def _bilinear_scores(model: BilinearPersonalityModel, batch: dict[str, tf.Tensor]) -> tf.Tensor:
    """Compute scores [B, 5] from a batch of `lay_out`, as `_specified_scores`."""
    rows = {kind: ops.matmul(batch[kind], model.kernel_of(kind)) for kind in KINDS}
    projected = {**batch, **{kind: tf.gather(rows[kind], batch[f"{kind}_row"]) for kind in KINDS}}
    return model.scores_of_projected(projected, model.attention(projected))


def _specified_scores(model: CompletePersonalityModel, batch: dict[str, tf.Tensor]) -> tf.Tensor:
    """Compute scores [B, 5] from a batch of `lay_out`; they equal `model(...)` up to the rounding of float32 sums."""
    layer = model.cross_attention
    static, static_mask = _project(model, batch, "static")
    dynamic, dynamic_mask = _project(model, batch, "dynamic")
    fused = layer.norm(static + _attend(layer, static, dynamic, dynamic_mask))
    return model.head(model.fusion(fused, token_mask=static_mask, training=False))


def _project(model: CompletePersonalityModel, batch: dict[str, tf.Tensor], kind: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Project tokens to [B, T, fusion_dim], with times added or pooled, as the form requires; and the mask [B, T]."""
    projection, standardisation = (
        getattr(model.cross_attention, f"{kind}_{part}") for part in ("projection", "standardisation")
    )
    rows = ops.matmul(batch[kind], standardisation.folded(projection.kernel)) + projection.bias
    tokens, mask = tf.gather(rows, batch[f"{kind}_row"]), batch[f"{kind}_mask"]
    if model.form == "vector":  # the projection of the mean is the mean of the projections
        pooled = ops.expand_dims(masked_mean(tokens, mask), 1)
        return pooled, ops.ones_like(pooled[..., 0], "bool")
    return tokens + time_encoding(batch[f"{kind}_time_s"], model.fusion_dim), mask


def _attend(layer: CrossAttention, static: tf.Tensor, dynamic: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return the attention layer's output for static tokens [B, Ts, D] over dynamic tokens [B, Td, D]."""
    attention, heads, dim = layer.attention, layer.num_heads, layer.fusion_dim
    query, key, value, output = (getattr(attention, f"{name}_dense") for name in ("query", "key", "value", "output"))
    scale = 1 / np.sqrt(attention.key_dim, dtype=np.float32)
    to_keys = ops.einsum("dhk,ehk->dhe", key.kernel, query.kernel) * scale
    key_bias = ops.einsum("hk,ehk->he", key.bias, query.kernel) * scale
    to_logits = ops.einsum("dhk,hk->dh", key.kernel, query.bias) * scale
    to_answers = ops.einsum("dhk,hke->dhe", value.kernel, output.kernel)
    answer_bias = ops.einsum("hk,hke->e", value.bias, output.kernel) + output.bias

    count, token_count = ops.shape(dynamic)[0], ops.shape(dynamic)[1]
    keys = ops.matmul(dynamic, ops.reshape(to_keys, (dim, heads * dim))) + ops.reshape(key_bias, (-1,))
    answers = ops.matmul(dynamic, ops.reshape(to_answers, (dim, heads * dim)))
    logits = ops.where(ops.expand_dims(mask, -1), ops.matmul(dynamic, to_logits), _MASKED_LOGIT)

    keys, answers = (ops.reshape(each, (count, token_count * heads, dim)) for each in (keys, answers))
    similar = tf.matmul(static, keys, transpose_b=True) + ops.reshape(logits, (count, 1, token_count * heads))
    weights = tf.nn.softmax(tf.reshape(similar, (count, -1, token_count, heads)), axis=2)
    return ops.matmul(ops.reshape(weights, (count, -1, token_count * heads)), answers) + answer_bias


def _aligned(shape: tuple[int, int]) -> np.ndarray:
    """Allocate memory for float32 numbers that TensorFlow can share."""
    size = 4 * shape[0] * shape[1]
    memory = np.empty(size + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    return memory[start : start + size].view(np.float32).reshape(shape)
