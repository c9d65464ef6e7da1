"""The specified model, over one vector per clip or over sequences of tokens."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from fusion.model.inputs import KINDS, CheckedModel, by_name
from fusion.model.layers import CrossAttention, FeatureFusionModule, PersonalityPredictionHead, masked_mean
from fusion.settings import Form


@keras.saving.register_keras_serializable(package="traitline")
class CompletePersonalityModel(CheckedModel):
    """Cross-attention of faces over motion, fusion, and five linear outputs in trait order.

    With static_dim=512 and dynamic_dim=256 it has 371,717 parameters, 371,461 of them trainable (the other 256 are
    BatchNorm's moving statistics); with 2048 and 1024 it has 666,629. The statistics that standardise its inputs are
    weights too once they are set, and are not counted.

    With one static and one dynamic vector the softmax has a single key, so every attention weight is 1 and the query
    and key projections are never trained; attention only makes sense for sequences.

    Scores are linear: they are neither clipped nor squashed to the [0, 1] of the labels. A score outside that range
    shows that the clip is beyond the training data, which a clipped score would hide.
    """

    def __init__(
        self,
        static_dim: int = 512,
        dynamic_dim: int = 256,
        fusion_dim: int = 128,
        num_heads: int = 4,
        dropout_rate: float = 0.3,
        hidden_dim: int = 64,
        form: Form = "sequence",
        standardised: bool = False,
        **kwargs: Any,
    ) -> None:
        """Create the model with the specification's dimensions.

        Args:
            static_dim: length of a static token.
            dynamic_dim: length of a dynamic token.
            fusion_dim: length of a fused token and of each head's keys.
            num_heads: number of attention heads.
            dropout_rate: share of fused numbers dropped in training.
            hidden_dim: length of the head's hidden layer.
            form: "sequence" attends over the given tokens; "vector" first averages each clip's tokens and drops their
                times, so that a vector model scores token clips unchanged.
            standardised: whether the model has statistics that standardise its inputs, see `set_statistics`.

        Raises:
            ValueError: the form is unknown.
        """
        # without autocast, so that times and statistics stay float32 under mixed precision
        super().__init__(autocast=False, **kwargs)
        if form not in ("sequence", "vector"):
            raise ValueError(f"form must be 'sequence' or 'vector', got {form!r}")
        self.static_dim = static_dim
        self.dynamic_dim = dynamic_dim
        self.fusion_dim = fusion_dim
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate
        self.hidden_dim = hidden_dim
        self.form = form
        sub = {"dtype": self.dtype_policy}
        self.cross_attention = CrossAttention(
            static_dim, dynamic_dim, fusion_dim, num_heads, standardised, name="cross_attention", **sub
        )
        self.fusion = FeatureFusionModule(fusion_dim, dropout_rate, name="fusion", **sub)
        self.head = PersonalityPredictionHead(hidden_dim, name="head", **sub)
        self.head.build((None, fusion_dim))
        self.built = True
        self.scoring_function: Any = None  # compiled by `fusion.model.scoring_graph`

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Score clips.

        Args:
            inputs: the pair (static, dynamic), each [B, D] or [B, T, D] with every token real; or a dict of "static",
                "dynamic" and, each optional, "static_mask", "dynamic_mask" (bool [B, T], True marks a real token),
                "static_time_s", "dynamic_time_s" (float32 [B, T], seconds). Without times, or as vectors, tokens
                carry no time.
            training: whether to apply dropout and batch statistics.

        Returns:
            [B, 5], trait order.
        """
        tokens = self.token_inputs(inputs)
        fused = self.cross_attention(**tokens)
        return self.head(self.fusion(fused, token_mask=tokens.get("static_mask"), training=training))

    def token_inputs(self, inputs: Any) -> dict[str, Any]:
        """Return the arguments of `cross_attention` for these inputs, as a dict; pooled in vector form."""
        inputs = by_name(inputs)
        if self.form == "sequence":
            return dict(inputs)
        return {
            kind: masked_mean(inputs[kind], inputs.get(f"{kind}_mask")) if ops.ndim(inputs[kind]) == 3 else inputs[kind]
            for kind in KINDS
        }

    def attention(self, tokens: dict[str, Any]) -> Any:
        """Return the attention weights [B, heads, Ts, Td] of `token_inputs`."""
        return self.cross_attention(**tokens, return_attention=True)[1]

    def scores_for(self, tokens: dict[str, Any], attention: Any) -> Any:
        """Score tokens, of `token_inputs`, with given attention weights: [B, 5]."""
        layer = self.cross_attention
        query, key = (
            layer.tokens(kind, tokens[kind], tokens.get(f"{kind}_mask"), tokens.get(f"{kind}_time_s")) for kind in KINDS
        )
        fused = layer.fused_by(query, key, attention)
        pooled = self.fusion(fused, token_mask=tokens.get("static_mask"), training=False)
        return self.head(pooled)

    def input_signature(self) -> dict[str, tf.TensorSpec]:
        """Return the model's inputs by name: tokens, their masks, and their times if its form has times.

        B, Ts and Td are variable: "static" float32 [B, Ts, Ds], "static_mask" bool [B, Ts], "static_time_s" float32
        [B, Ts]; "dynamic" float32 [B, Td, Dd] and so on. True marks a real token. Padding has no effect.
        """
        return token_signature(self.static_dim, self.dynamic_dim, self.form)

    def set_statistics(
        self, static_mean: np.ndarray, static_std: np.ndarray, dynamic_mean: np.ndarray, dynamic_std: np.ndarray
    ) -> None:
        """Store the training set's statistics, which standardise the model's inputs; they are saved with the model.

        Args:
            static_mean: [static_dim].
            static_std: [static_dim], positive.
            dynamic_mean: [dynamic_dim].
            dynamic_std: [dynamic_dim], positive.
        """
        self.cross_attention.static_standardisation.set_statistics(static_mean, static_std)
        self.cross_attention.dynamic_standardisation.set_statistics(dynamic_mean, dynamic_std)
        self._forget_functions()

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """Load weights as Keras does; the file also holds the statistics."""
        super().load_weights(*args, **kwargs)
        self._forget_functions()

    def count_params(self) -> int:
        """Return the number of weights of the specification, without the statistics."""
        layer = self.cross_attention
        statistics = (*layer.static_standardisation.weights, *layer.dynamic_standardisation.weights)
        every: int = super().count_params()
        return every - sum(int(math.prod(weight.shape)) for weight in statistics)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Print the layers as Keras does, with their output shapes for any number of clips and tokens."""
        if not self.head._inbound_nodes:  # Keras takes the shapes from a call with symbolic tensors
            axes = (None, None) if self.form == "sequence" else (None,)
            self.call((keras.KerasTensor((*axes, self.static_dim)), keras.KerasTensor((*axes, self.dynamic_dim))))
        super().summary(*args, **kwargs)

    def _forget_functions(self) -> None:
        # functions that were traced without statistics do not know them
        self.train_function = self.test_function = self.predict_function = self.scoring_function = None

    def get_config(self) -> dict[str, Any]:
        """Return every constructor argument."""
        return {
            **super().get_config(),
            "static_dim": self.static_dim,
            "dynamic_dim": self.dynamic_dim,
            "fusion_dim": self.fusion_dim,
            "num_heads": self.num_heads,
            "dropout_rate": self.dropout_rate,
            "hidden_dim": self.hidden_dim,
            "form": self.form,
            "standardised": self.cross_attention.static_standardisation.standardised,
        }


def token_signature(static_dim: int, dynamic_dim: int, form: Form) -> dict[str, tf.TensorSpec]:
    """Return the inputs of a model by name, see `CompletePersonalityModel.input_signature`."""
    inputs = {}
    for kind, dim in (("static", static_dim), ("dynamic", dynamic_dim)):
        inputs[kind] = tf.TensorSpec([None, None, dim], tf.float32, name=kind)
        inputs[f"{kind}_mask"] = tf.TensorSpec([None, None], tf.bool, name=f"{kind}_mask")
        if form == "sequence":
            inputs[f"{kind}_time_s"] = tf.TensorSpec([None, None], tf.float32, name=f"{kind}_time_s")
    return inputs
