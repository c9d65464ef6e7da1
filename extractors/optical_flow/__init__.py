"""Optical flow of grey frames by TV-L1, with a choice of engines that agree.

Names are loaded on first use, so that the settings can be read without the libraries that the computer needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
