"""The model: from cached tokens of a clip to five trait scores.

Names are loaded on first use, so that `import fusion` costs nothing for code that does not need Keras.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusion.model.layers import CrossAttention as CrossAttention
    from fusion.model.layers import FeatureFusionModule as FeatureFusionModule
    from fusion.model.layers import PersonalityPredictionHead as PersonalityPredictionHead
    from fusion.model.model import CompletePersonalityModel as CompletePersonalityModel
    from fusion.pictures.attention import get_attention_weights as get_attention_weights
    from fusion.pictures.attention import plot_attention_map as plot_attention_map
    from fusion.traits import TRAITS as TRAITS

_MODULE_OF = {
    "TRAITS": "fusion.traits",
    "CompletePersonalityModel": "fusion.model.model",
    "CrossAttention": "fusion.model.layers",
    "FeatureFusionModule": "fusion.model.layers",
    "PersonalityPredictionHead": "fusion.model.layers",
    "get_attention_weights": "fusion.pictures.attention",
    "plot_attention_map": "fusion.pictures.attention",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fusion' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
