"""Optical flow of grey frames by TV-L1, with a choice of engines that agree."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
