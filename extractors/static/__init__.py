"""Static features: the appearance of a face in one frame, by ResNet-50.

Names are loaded on first use, so that the settings can be read without the libraries that the extractor needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
