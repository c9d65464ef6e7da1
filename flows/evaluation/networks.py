"""The networks that `traitline compare` sets side by side, built as the pipeline builds them, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from extractors import dynamic, static
from extractors.networks import SIDE_PX

if TYPE_CHECKING:
    import keras

FACE_TOKENS = 16  # of a clip of First Impressions V2, 15 s, with the default settings
MOTION_TOKENS = 6
FIELDS = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """A network to compare.

    Attributes:
        shapes: of its inputs for one clip, face crop or window, batch axis included.
        folds: whether extraction folds its BatchNorms away; it is then timed in that form.
    """

    title: str
    shapes: tuple[tuple[int, ...], ...]
    build: Callable[[], keras.Model]
    folds: bool = False


def _model(static_dim: int, dynamic_dim: int, form: Literal["sequence", "vector"]) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        from fusion.model.model import CompletePersonalityModel

        return CompletePersonalityModel(static_dim, dynamic_dim, form=form)

    return build


def _mlp() -> keras.Model:
    from fusion.evaluation.baselines import mlp_network

    return mlp_network(static.FEATURES + dynamic.FEATURES)


def _resnet50() -> keras.Model:
    from extractors.static.extractor import StaticFeatureExtractor

    return StaticFeatureExtractor("random").model


def _i3d() -> keras.Model:
    from extractors.dynamic.i3d import build_i3d

    return build_i3d()


_TOKENS = _model(static.FEATURES, dynamic.FEATURES, "sequence")
_FACES, _MOTION = (1, FACE_TOKENS, static.FEATURES), (1, MOTION_TOKENS, dynamic.FEATURES)

# static_only and dynamic_only are what `traitline evaluate` trains: the model with one blank token for the other kind.
ENTRIES = {
    "specified": Entry("specified model, vectors of 512 and 256", ((1, 512), (1, 256)), _model(512, 256, "vector")),
    "vector_form": Entry(
        "vector form, a clip's mean tokens",
        ((1, static.FEATURES), (1, dynamic.FEATURES)),
        _model(static.FEATURES, dynamic.FEATURES, "vector"),
    ),
    "token_form": Entry("token form, 16 faces and 6 windows", (_FACES, _MOTION), _TOKENS),
    "mlp_both": Entry("perceptron on both mean tokens", ((1, static.FEATURES + dynamic.FEATURES),), _mlp),
    "static_only": Entry("token form, faces only", (_FACES, (1, 1, dynamic.FEATURES)), _TOKENS),
    "dynamic_only": Entry("token form, motion only", ((1, 1, static.FEATURES), _MOTION), _TOKENS),
    "resnet50": Entry("ResNet-50, a face crop", ((1, SIDE_PX, SIDE_PX, 3),), _resnet50, folds=True),
    "i3d": Entry("I3D, a window of 64 fields", ((1, FIELDS, SIDE_PX, SIDE_PX, 2),), _i3d, folds=True),
}
