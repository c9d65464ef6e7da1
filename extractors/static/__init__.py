"""Static features: the appearance of a face in one frame, by ResNet-50."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
