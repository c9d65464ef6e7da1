"""Prefect flows and the command line: what joins the three libraries."""

import _datetime  # type: ignore[import-not-found]  # a private module of CPython has no stub
import ctypes
from importlib.metadata import version

import lazy_loader

# Times that Prefect reads are pydantic's. Those that are still there when the interpreter ends are freed through the C
# API of datetime, which CPython 3.11 and 3.12 free first: all done, the process would die of a segmentation fault
# (https://github.com/pydantic/pydantic/issues/12867). One reference more keeps it.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_datetime.datetime_CAPI))

__version__ = version("traitline")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
