"""Windows of optical flow for I3D, from optical-flow files or videos on disk."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from extractors.errors import VideoError
from extractors.networks import SIDE_PX
from extractors.networks.preprocessing import resized
from extractors.optical_flow.computer import OpticalFlowComputer, loop_to, scale_for_i3d
from extractors.video.grid import grid_frames

# A picture's shorter side before its centre is cut out, as in the released code of I3D.
SHORTER_SIDE_PX = 256
# Middlebury's files mark unknown motion by values beyond this one.
UNKNOWN = 1e9

Source = Path | str | np.ndarray

# Exceptions of NumPy and zipfile for damaged bytes, besides ValueError.
_MALFORMED = (
    EOFError,
    KeyError,
    TypeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
)


class OpticalFlowSequenceLoader:
    """Loads optical flow in the form and range that I3D takes, in batches.

    Each source becomes one window. A source is one of

    - a .npy or .npz file, or an array: displacements [T, H, W, 2] or [1, T, H, W, 2]; an .npz holds only one array;
    - a .flo file in Middlebury's format, which holds one field, or a folder of .flo files, in the order of their names;
      unknown motion counts as zero;
    - any other file: a video. Its frames at `fps` are scaled to a shorter side of 256 px, their central 224 x 224 is
      cut out, and the optical flow between them is computed. Faces are not detected: the pipeline does that in
      `extractors.faces.crops`.

    Larger fields from files and arrays are cropped to their central 224 x 224; smaller ones are refused, because
    scaling would change displacements. Longer sequences are trimmed to their middle fields.

    Args:
        fields: optical-flow fields per window, for I3D at least 9.
        batch_size: windows per batch; the last batch may have fewer.
        shorter: how to complete a shorter sequence: "loop" repeats it, "pad" appends fields without motion.
        values: unit of files and arrays: "pixels", or "scaled" if they are already in [-1, 1], like DeepMind's samples.
        bound_px: displacements beyond +-bound_px are clipped; bound_px becomes 1.
        fps: frames per second to read from a video.
        optical_flow: computes the optical flow of videos; by default, `OpticalFlowComputer()`.

    Example:
        >>> loader = OpticalFlowSequenceLoader(fields=64, batch_size=4)
        >>> for windows in loader.batches(["a.npy", "b.mp4"]):
        ...     features = extractor(windows)

    Raises:
        ValueError: a setting is out of range; names it.

    Sources:
        google-deepmind/kinetics-i3d, README, "Sample data and preprocessing"; Middlebury's flow-code, README.txt.
    """

    def __init__(
        self,
        *,
        fields: int = 64,
        batch_size: int = 1,
        shorter: Literal["loop", "pad"] = "loop",
        values: Literal["pixels", "scaled"] = "pixels",
        bound_px: float = 20.0,
        fps: float = 25.0,
        optical_flow: OpticalFlowComputer | None = None,
    ) -> None:
        if shorter not in ("loop", "pad"):
            raise ValueError(f"shorter must be 'loop' or 'pad'; got {shorter!r}")
        if values not in ("pixels", "scaled"):
            raise ValueError(f"values must be 'pixels' or 'scaled'; got {values!r}")
        for name, number in (("fields", fields), ("batch_size", batch_size)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1; got {number}")
        for name, rate in (("bound_px", bound_px), ("fps", fps)):
            if not rate > 0:
                raise ValueError(f"{name} must be positive; got {rate}")
        self.fields, self.batch_size, self.shorter = fields, batch_size, shorter
        self.values, self.bound_px, self.fps = values, bound_px, fps
        self._optical_flow = optical_flow

    def load(self, source: Source) -> np.ndarray:
        """Load one source.

        Returns:
            float32, (fields, 224, 224, 2), in [-1, 1]; channel 0 is dx (rightwards), channel 1 is dy (down).

        Raises:
            ValueError: the source does not hold optical flow; names it and the expected content.
            FileNotFoundError: the source does not exist.
            extractors.errors.VideoError: a video cannot be decoded, or has only one frame.
        """
        if not isinstance(source, np.ndarray) and not Path(source).exists():
            raise FileNotFoundError(f"{source} does not exist")
        try:
            if isinstance(source, np.ndarray):
                motion, values = source, self.values
            elif (kind := _kind(Path(source))) == "video":
                motion, values = self._computed(Path(source)), "pixels"
            else:
                motion, values = _read_array(Path(source)) if kind == "array" else _read_flo(Path(source)), self.values
            return self._adjusted(self._in_range(_middle(_checked(motion)), values))
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{'array' if isinstance(source, np.ndarray) else source}: {reason}") from error

    def batches(self, sources: Sequence[Source]) -> Iterator[np.ndarray]:
        """Yield the windows of all sources in order, loading no more than one batch ahead.

        Yields:
            float32, (n, fields, 224, 224, 2), in [-1, 1]; n is `batch_size`, or fewer in the last batch.

        Raises:
            ValueError, FileNotFoundError, VideoError: as `load`.
        """
        windows = map(self.load, sources)
        while batch := list(islice(windows, self.batch_size)):
            yield np.stack(batch)

    def _computed(self, video: Path) -> np.ndarray:
        frames = self._middle_frames(video)
        if len(frames) < 2:
            raise VideoError("motion", "too_short", f"{video.name} has only one frame, which shows no motion")
        if self._optical_flow is None:
            self._optical_flow = OpticalFlowComputer()
        return self._optical_flow.compute(np.stack(frames))

    def _middle_frames(self, video: Path) -> list[np.ndarray]:
        """Return the grey frames between which the fields lie that `_adjusted` keeps, or all if there are fewer.

        Only its end tells how long a video is. A longer one is decoded once more up to the last of these frames, so
        that memory does not grow with its length.
        """
        pictures = grid_frames(video, self.fps)
        frames = [_grey(picture) for picture in islice(pictures, self.fields + 1)]
        further = sum(1 for _ in pictures)
        if not further:
            return frames
        kept = _trimmed(len(frames) + further - 1, self.fields)
        pictures = grid_frames(video, self.fps, thresholds=None)
        return [_grey(picture) for picture in islice(pictures, kept.start, kept.stop + 1)]

    def _in_range(self, motion: np.ndarray, values: str) -> np.ndarray:
        if values == "pixels":
            return scale_for_i3d(motion, bound_px=self.bound_px)
        if np.abs(motion).max() > 1:
            raise ValueError(f"scaled optical flow must lie in [-1, 1]; got {motion.min():.3g} to {motion.max():.3g}")
        return motion.astype(np.float32)

    def _adjusted(self, motion: np.ndarray) -> np.ndarray:
        motion = motion[_trimmed(len(motion), self.fields)]
        if self.shorter == "loop":
            return loop_to(motion, self.fields)
        still = np.zeros((self.fields - len(motion), *motion.shape[1:]), np.float32)
        return np.concatenate([motion, still])


def _kind(path: Path) -> Literal["array", "flo", "video"]:
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return "array"
    return "flo" if suffix == ".flo" or path.is_dir() else "video"


def _read_array(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)  # a pickle could run code
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if len(loaded.files) != 1:
                raise ValueError(f"an .npz must hold one array; got {', '.join(loaded.files) or 'none'}")
            array = loaded[loaded.files[0]]
            if not isinstance(array, np.ndarray):  # NumPy returns other members as bytes
                raise ValueError("the .npz holds something that is not an array")
            return array
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror or error}") from error
    except _MALFORMED as error:
        raise ValueError("the file is damaged") from error


def _read_flo(path: Path) -> np.ndarray:
    files = sorted(path.glob("*.flo")) if path.is_dir() else [path]
    if not files:
        raise ValueError("the folder holds no .flo files")
    fields: list[np.ndarray] = []
    for file in files:
        field = cv2.readOpticalFlow(str(file)) if _is_flo(file) else None
        if field is None or field.size == 0:
            raise ValueError(f"{file.name} is not a .flo file in Middlebury's format")
        if fields and field.shape != fields[0].shape:
            raise ValueError(f"{file.name} has {field.shape[:2]} pixels, and {files[0].name} {fields[0].shape[:2]}")
        field[np.abs(field).max(axis=-1) > UNKNOWN] = 0
        fields.append(field)
    return np.stack(fields)


def _is_flo(file: Path) -> bool:
    """Return whether a file has the size that its header states; OpenCV allocates that size unchecked."""
    with file.open("rb") as stream:
        width, height = np.frombuffer(stream.read(12).ljust(12, b"\0"), "<i4")[1:].tolist()
    return bool(width > 0 and height > 0 and file.stat().st_size == 12 + 8 * width * height)


def _checked(motion: np.ndarray) -> np.ndarray:
    """Return [T, H, W, 2] after checking its shape, dtype and values."""
    fields = motion[0] if motion.ndim == 5 and len(motion) == 1 else motion
    if fields.ndim != 4 or fields.shape[-1] != 2 or not len(fields) or min(fields.shape[1:3]) < SIDE_PX:
        raise ValueError(
            f"optical flow must have shape [T, H, W, 2], T at least 1, H and W at least {SIDE_PX}; got {motion.shape}"
        )
    if not np.issubdtype(fields.dtype, np.floating):
        raise ValueError(f"optical flow must be floating-point numbers; got {fields.dtype}")
    if not np.isfinite(fields).all():
        raise ValueError("optical flow must be finite; got NaN or infinity")
    return fields


def _middle(pictures: np.ndarray) -> np.ndarray:
    """Cut the central 224 x 224 out of [T, H, W, ...]."""
    top, left = (pictures.shape[1] - SIDE_PX) // 2, (pictures.shape[2] - SIDE_PX) // 2
    return np.asarray(pictures[:, top : top + SIDE_PX, left : left + SIDE_PX])


def _grey(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = SHORTER_SIDE_PX / min(height, width)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.asarray(_middle(resized(grey, (round(width * scale), round(height * scale)))[None])[0])


def _trimmed(length: int, wanted: int) -> slice:
    start = max(0, (length - wanted) // 2)
    return slice(start, min(length, start + wanted))
