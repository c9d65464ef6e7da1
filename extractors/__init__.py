"""From videos to features: faces, crops, optical flow, and the two networks that describe them.

Names are loaded on first use, so that settings and errors can be used without the libraries that networks need.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("traitline")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
