"""Static features: what a face looks like in one frame, by ResNet-50."""

from extractors.static.extractor import ASSET, FEATURES, REVISION, StaticFeatureExtractor, StaticSettings

__all__ = ["ASSET", "FEATURES", "REVISION", "StaticFeatureExtractor", "StaticSettings"]
