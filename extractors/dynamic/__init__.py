"""Dynamic features: the motion of a face in one window of time, by I3D on optical flow.

The extractor and the loader are loaded on first use, so that the settings can be read without the libraries that they
need.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from extractors.dynamic.settings import ASSET, FEATURES, REVISION, DynamicSettings

if TYPE_CHECKING:
    from extractors.dynamic.extractor import DynamicFeatureExtractor
    from extractors.dynamic.sequences import OpticalFlowSequenceLoader

__all__ = ["ASSET", "FEATURES", "REVISION", "DynamicFeatureExtractor", "DynamicSettings", "OpticalFlowSequenceLoader"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'extractors.dynamic' has no attribute {name!r}")
    module = "sequences" if name == "OpticalFlowSequenceLoader" else "extractor"
    return getattr(import_module(f"extractors.dynamic.{module}"), name)
