"""How videos are prepared in these tests, and a short one of a person."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from extractors.faces.settings import CropSettings, FaceSettings
from extractors.optical_flow.parameters import OpticalFlowSettings
from extractors.preparation.preparer import PreparationSettings
from extractors.video.grid import grid_frames
from extractors.video.settings import VideoSettings


@pytest.fixture(scope="session")
def settings(face_models) -> PreparationSettings:
    return PreparationSettings(
        face_models, VideoSettings(), FaceSettings(), CropSettings(), OpticalFlowSettings(engine="cpu", preset="fast")
    )


@pytest.fixture(scope="session")
def clip(corpus, draw_in, tmp_path_factory) -> Path:
    """20 frames of one person: a single window."""
    pictures = list(islice(grid_frames(corpus / "plain" / "single_face.mp4", 25.0), 20))
    return draw_in(tmp_path_factory.mktemp("clip")).write("clip.mp4", pictures)
