"""The influences on a trait score: its gradients with respect to attention and to the face tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from fusion.model.kinds import PersonalityModel
from fusion.traits import TRAITS


def face_gradient(model: PersonalityModel, inputs: Mapping[str, Any], trait: str) -> np.ndarray:
    """Compute the gradient of a trait score with respect to every face token.

    Args:
        inputs: a dict of the model's inputs, with "static" [B, Ts, Ds].

    Returns:
        float32 [B, Ts, Ds].

    Raises:
        ValueError: the trait is unknown.
    """
    static = tf.convert_to_tensor(inputs["static"])
    with tf.GradientTape() as tape:
        tape.watch(static)
        score = tf.reduce_sum(model({**inputs, "static": static}, training=False)[:, _place(trait)])
    return np.asarray(tape.gradient(score, static).numpy())


def attention_relevance(model: PersonalityModel, inputs: Mapping[str, Any], trait: str) -> np.ndarray:
    """Compute how much more attention to each motion token would raise a trait score.

    This is the gradient of the score with respect to the logarithm of each attention weight before the softmax:
    weight x (the token's contribution to the trait - the weighted mean contribution of all tokens). A token with hardly
    any attention, or with the mean contribution, gets 0; a token that raises the score is positive, one that lowers it
    negative.

    Args:
        model: in token form; in vector form there is only one token, and all values are 0.
        inputs: a dict of the model's inputs.

    Returns:
        float32 [B, heads, Ts, Td]; each row sums to 0, because attention weights must sum to 1.

    Raises:
        ValueError: the trait is unknown.
    """
    tokens = model.token_inputs(dict(inputs))
    weights = tf.convert_to_tensor(model.attention(tokens))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        score = tf.reduce_sum(model.scores_for(tokens, weights)[:, _place(trait)])
    gradient = tape.gradient(score, weights)
    relevance: np.ndarray = (weights * (gradient - ops.sum(weights * gradient, axis=-1, keepdims=True))).numpy()
    return relevance.astype(np.float32)


def _place(trait: str) -> int:
    if trait not in TRAITS:
        raise ValueError(f"trait must be one of {', '.join(TRAITS)}; got {trait!r}")
    return TRAITS.index(trait)
