"""Videos drawn by the tests: each picture carries its own number, so that a decoded one says which it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from extractors.faces.detector import FaceDetector
from extractors.faces.settings import FaceModels
from extractors.video.grid import grid_frames

if TYPE_CHECKING:
    import keras

    from extractors.dynamic.extractor import DynamicFeatureExtractor
    from extractors.static.extractor import StaticFeatureExtractor

BITS = 9
BLOCK_PX = 16


class Drawing:
    """Draws numbered pictures, writes them as videos into a folder, and reads the numbers back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def picture(number: int, width: int = 160, height: int = 96) -> np.ndarray:
        """uint8 RGB [height, width, 3]: the number as black and white blocks, and corners that tell orientation."""
        picture = np.full((height, width, 3), 100, np.uint8)
        for bit in range(BITS):
            picture[40:56, 8 + bit * BLOCK_PX : 8 + (bit + 1) * BLOCK_PX] = 255 * (number >> bit & 1)
        picture[:24, :24] = (230, 30, 30)  # red: top left
        picture[:24, -24:] = (30, 200, 30)  # green: top right
        picture[-24:, :24] = (30, 30, 230)  # blue: bottom left
        return picture

    @staticmethod
    def number(picture: np.ndarray) -> int:
        """The number on a picture that is 160 wide and 96 or so high."""
        x = 8 + np.arange(BITS) * BLOCK_PX + BLOCK_PX // 2
        bits = picture[48, x].mean(axis=-1) > 128
        return int((bits << np.arange(BITS)).sum())

    def numbers(self, path: Path, fps: float = 25.0) -> list[int]:
        return [self.number(picture) for picture in grid_frames(path, fps)]

    def pictures(self, count: int, **size: int) -> Iterator[np.ndarray]:
        return (self.picture(number, **size) for number in range(count))

    def write(
        self,
        name: str,
        pictures: Iterable[np.ndarray],
        *,
        rate: Fraction | int = 25,
        times: Iterable[int] | None = None,
        time_base: Fraction | None = None,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        file_format: str | None = None,
        turn: dict[str, Any] | None = None,
        aspect: Fraction | None = None,
    ) -> Path:
        """Write a video; times are in units of time_base, which is 1 / rate by default."""
        path = self.folder / name
        base = Fraction(1) / rate if time_base is None else time_base
        moments = None if times is None else list(times)
        with av.open(str(path), "w", format=file_format, options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.pix_fmt = pix_fmt
            stream.codec_context.time_base = base
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            if turn is not None:
                stream.set_display_rotation(**turn)
            for index, picture in enumerate(pictures):
                if index == 0:
                    stream.height, stream.width = picture.shape[:2]
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = (index if moments is None else moments[index]), base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path


@pytest.fixture
def drawing(tmp_path: Path) -> Drawing:
    return Drawing(tmp_path)


@pytest.fixture(scope="session")
def draw_in() -> type[Drawing]:
    """For videos that many tests share: `draw_in(folder).write(...)`."""
    return Drawing


@pytest.fixture(scope="module")
def detector(face_models: FaceModels) -> Iterator[FaceDetector]:
    with FaceDetector(face_models) as detector:
        yield detector


@pytest.fixture(scope="session")
def i3d_extractor() -> DynamicFeatureExtractor:
    """I3D with random weights of seed 3, built once for all tests; they put back what they change."""
    from extractors.dynamic.extractor import DynamicFeatureExtractor

    return DynamicFeatureExtractor("random", seed=3)


@pytest.fixture(scope="session")
def i3d_with_head() -> keras.Model:
    """I3D with the classification head, built once for all tests; they may load any weights."""
    from extractors.dynamic.i3d import build_i3d

    return build_i3d(classes=400)


@pytest.fixture(scope="session")
def resnet_extractor() -> StaticFeatureExtractor:
    """ResNet-50 with random weights of seed 3, built once for all tests; they put back what they change."""
    from extractors.static.extractor import StaticFeatureExtractor

    return StaticFeatureExtractor("random", seed=3)


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[[Path, dict[str, np.ndarray]], None]:
    """Writes FOLDER/model.ckpt in TensorFlow 1's format, with these values under these names."""
    import tensorflow as tf

    def write(folder: Path, values: dict[str, np.ndarray]) -> None:
        names = list(values)
        tensors = [tf.constant(values[name]) for name in names]
        tf.raw_ops.SaveV2(
            prefix=str(folder / "model.ckpt"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
        )

    return write
