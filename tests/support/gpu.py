"""Marks of tests that need a GPU for optical flow."""

import pytest

from extractors.optical_flow.gpu import why_unusable

MISSING = why_unusable()
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(bool(MISSING), reason=str(MISSING))]
