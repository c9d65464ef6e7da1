"""The model: from cached tokens of a clip to five trait scores.

Names are loaded on first use, so that `import fusion` costs nothing for code that does not need Keras.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("traitline")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
