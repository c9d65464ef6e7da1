"""Dynamic features: how a face moves over one window of time, by I3D on optical flow."""

from extractors.dynamic.extractor import ASSET, FEATURES, REVISION, SIDE_PX, DynamicFeatureExtractor, DynamicSettings
from extractors.dynamic.sequences import OpticalFlowSequenceLoader

__all__ = [
    "ASSET",
    "FEATURES",
    "REVISION",
    "SIDE_PX",
    "DynamicFeatureExtractor",
    "DynamicSettings",
    "OpticalFlowSequenceLoader",
]
