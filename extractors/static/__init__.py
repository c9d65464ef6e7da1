"""Static features: the appearance of a face in one frame, by ResNet-50."""

from extractors.static.extractor import ASSET, FEATURES, REVISION, StaticFeatureExtractor, StaticSettings

__all__ = ["ASSET", "FEATURES", "REVISION", "StaticFeatureExtractor", "StaticSettings"]
