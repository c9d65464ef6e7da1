"""Static features: the appearance of a face in one frame, by ResNet-50.

The extractor is loaded on first use, so that the settings can be read without the libraries that it needs.
"""

from typing import TYPE_CHECKING

from extractors.static.settings import ASSET, FEATURES, REVISION, StaticSettings

if TYPE_CHECKING:
    from extractors.static.extractor import StaticFeatureExtractor

__all__ = ["ASSET", "FEATURES", "REVISION", "StaticFeatureExtractor", "StaticSettings"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'extractors.static' has no attribute {name!r}")
    from extractors.static import extractor

    return getattr(extractor, name)
