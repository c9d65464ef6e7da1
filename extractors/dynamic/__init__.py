"""Dynamic features: the motion of a face in one window of time, by I3D on optical flow."""

from extractors.dynamic.extractor import ASSET, FEATURES, REVISION, DynamicFeatureExtractor, DynamicSettings
from extractors.dynamic.sequences import OpticalFlowSequenceLoader

__all__ = [
    "ASSET",
    "FEATURES",
    "REVISION",
    "DynamicFeatureExtractor",
    "DynamicSettings",
    "OpticalFlowSequenceLoader",
]
