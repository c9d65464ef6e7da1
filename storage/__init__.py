"""Everything on disk: cached features, failures, models, scores and exported CSVs.

Names are loaded on first use, so that paths and errors can be used without the libraries that tables and shards need.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("traitline")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
