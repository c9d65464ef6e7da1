"""The default model: linear in a clip's mean tokens, and bilinear in face and motion of the same moment."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from fusion.model.inputs import KINDS, CheckedModel, by_name
from fusion.model.layers import masked_mean
from fusion.model.model import token_signature
from fusion.settings import Form
from fusion.traits import TRAITS


@keras.saving.register_keras_serializable(package="traitline")
class BilinearPersonalityModel(CheckedModel):
    """Scores that are sums of what faces show on average, what motion shows on average, and what both show together.

    For the last part, tokens are centred within their clip and projected on a few components. Each face token attends
    to the motion tokens near it in time, with weights that fall like a Gaussian of the distance; every product of a
    face component and a motion component, averaged over the faces of a clip, has a coefficient for each trait. What
    stays the same in a clip is only in the means, so the parts are separate.

    All of it is linear in the coefficients, which `fusion.training.bilinear` computes in closed form. Nothing is drawn:
    a fresh model scores 0.
    """

    def __init__(
        self,
        static_dim: int = 512,
        dynamic_dim: int = 256,
        static_components: int = 48,
        dynamic_components: int = 48,
        moment_s: float = 0.64,
        form: Form = "sequence",
        **kwargs: Any,
    ) -> None:
        """Create the model.

        Args:
            static_dim: length of a static token.
            dynamic_dim: length of a dynamic token.
            moment_s: standard deviation of the attention's Gaussian, in seconds.
            form: "sequence", or "vector", which only takes the means.

        Raises:
            ValueError: the form is unknown.
        """
        super().__init__(**kwargs)
        if form not in ("sequence", "vector"):
            raise ValueError(f"form must be 'sequence' or 'vector', got {form!r}")
        self.static_dim = static_dim
        self.dynamic_dim = dynamic_dim
        self.static_components = static_components
        self.dynamic_components = dynamic_components
        self.moment_s = moment_s
        self.form = form
        self.static_scores = _linear(static_dim, len(TRAITS), "static_scores", use_bias=True)
        self.dynamic_scores = _linear(dynamic_dim, len(TRAITS), "dynamic_scores")
        if form == "sequence":
            self.static_projection = _linear(static_dim, static_components, "static_projection")
            self.dynamic_projection = _linear(dynamic_dim, dynamic_components, "dynamic_projection")
            self.product_scores = _linear(static_components * dynamic_components, len(TRAITS), "product_scores")
        self.built = True
        self.scoring_function: Any = None  # compiled by `fusion.model.scoring_graph`

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Score clips; inputs and result as of `CompletePersonalityModel`. Without times, only the means count."""
        tokens = self.token_inputs(inputs)
        return self.scores_for(tokens, self.attention(tokens))

    def token_inputs(self, inputs: Any) -> dict[str, Any]:
        """Return the inputs as a dict in which tokens are sequences; all but masks are float32."""
        tokens = {
            name: value if name.endswith("_mask") else ops.cast(value, "float32")
            for name, value in by_name(inputs).items()
        }
        return tokens | {kind: ops.expand_dims(tokens[kind], 1) for kind in KINDS if ops.ndim(tokens[kind]) == 2}

    def attention(self, tokens: dict[str, Any]) -> Any | None:
        """Return the attention weights [B, 1, Ts, Td] of `token_inputs`; None in vector form, or without times."""
        if self.form == "vector" or tokens.get("static_time_s") is None or tokens.get("dynamic_time_s") is None:
            return None
        distance = ops.expand_dims(tokens["static_time_s"], 2) - ops.expand_dims(tokens["dynamic_time_s"], 1)
        logits = -0.5 * ops.square(distance / self.moment_s)
        if tokens.get("dynamic_mask") is not None:
            logits = ops.where(ops.expand_dims(tokens["dynamic_mask"], 1), logits, -1e9)
        return ops.expand_dims(ops.softmax(logits, axis=-1), 1)

    def scores_for(self, tokens: dict[str, Any], attention: Any | None) -> Any:
        """Score tokens, of `token_inputs`, with given attention weights."""
        return self.scores_of_projected(self.project(tokens), attention)

    def project(self, tokens: dict[str, Any]) -> dict[str, Any]:
        """Replace tokens by what the model needs of them, [B, T, 5 + components]; padding becomes 0."""
        projected = dict(tokens)
        for kind in KINDS:
            rows = ops.matmul(tokens[kind], self.kernel_of(kind))
            if tokens.get(f"{kind}_mask") is not None:
                # no padding, not even NaN, may reach a sum
                rows = ops.where(ops.expand_dims(tokens[f"{kind}_mask"], -1), rows, 0.0)
            projected[kind] = rows
        return projected

    def kernel_of(self, kind: str) -> Any:
        """Return the kernel that turns a token into its contributions to the scores, and its components."""
        kernels = [getattr(self, f"{kind}_scores").kernel]
        if self.form == "sequence":
            kernels.append(getattr(self, f"{kind}_projection").kernel)
        return ops.concatenate(kernels, axis=1)

    def scores_of_projected(self, projected: dict[str, Any], attention: Any | None) -> Any:
        """Score tokens that are projected, see `project`."""
        scores = self.static_scores.bias
        for kind in KINDS:
            scores = scores + masked_mean(projected[kind][..., : len(TRAITS)], projected.get(f"{kind}_mask"))
        return scores if attention is None else scores + self.product_scores(self.products(projected, attention))

    def products(self, projected: dict[str, Any], attention: Any) -> Any:
        """Return the products of simultaneous components, mean over the faces: [B, components * components]."""
        static, dynamic = (self._centred(projected, kind) for kind in KINDS)
        products = ops.matmul(ops.transpose(static, (0, 2, 1)), ops.matmul(attention[:, 0], dynamic))
        mask = projected.get("static_mask")
        count = ops.shape(static)[1] if mask is None else ops.sum(ops.cast(mask, "float32"), axis=1)[:, None]
        return ops.reshape(products, (-1, self.static_components * self.dynamic_components)) / count

    def _centred(self, projected: dict[str, Any], kind: str) -> Any:
        rows, mask = projected[kind][..., len(TRAITS) :], projected.get(f"{kind}_mask")
        centred = rows - ops.expand_dims(masked_mean(rows, mask), 1)
        return centred if mask is None else ops.where(ops.expand_dims(mask, -1), centred, 0.0)

    def input_signature(self) -> dict[str, tf.TensorSpec]:
        """Return the model's inputs by name, see `CompletePersonalityModel.input_signature`."""
        return token_signature(self.static_dim, self.dynamic_dim, self.form)

    def get_config(self) -> dict[str, Any]:
        """Return every constructor argument."""
        return {
            **super().get_config(),
            "static_dim": self.static_dim,
            "dynamic_dim": self.dynamic_dim,
            "static_components": self.static_components,
            "dynamic_components": self.dynamic_components,
            "moment_s": self.moment_s,
            "form": self.form,
        }


def _linear(inputs: int, outputs: int, name: str, *, use_bias: bool = False) -> keras.layers.Dense:
    layer = keras.layers.Dense(outputs, use_bias=use_bias, kernel_initializer="zeros", name=name)
    layer.build((None, inputs))
    return layer
