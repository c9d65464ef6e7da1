"""Dynamic features: the motion of a face in one window of time, by I3D on optical flow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
