"""Head motion for the demo corpus: one portrait is bent so that its head nods, shakes, tilts, nears, sways or trembles.

The head moves over a body and a background that stay. Two smooth fields do it: the whole head is moved, turned and
scaled under a soft elliptic mask, and for nod and shake the face is treated as a bulge towards the camera, so that the
nose travels farther than the cheeks and the outline of the head hardly moves, as in a real turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

# The largest excursion from the resting pose, for a dial of 1.
NOD_DEG = 15.0
SHAKE_DEG = 17.0
TILT_DEG = 14.0
APPROACH_GAIN = 0.22
SWAY_PX = 45.0
JITTER_PX = 2.2
JITTER_TILT_DEG = 0.6

# Frequencies of the motions; people nod and shake at about 1 Hz, and sway more slowly.
NOD_HZ = 1.0
SHAKE_HZ = 0.9
TILT_HZ = 0.5
SWAY_HZ = 0.4
JITTER_BAND_HZ = (3.0, 7.0)
JITTER_WAVES = 4

# Depth of the face's bulge, as a share of the head's half width.
BULGE_DEPTH = 0.6
# A turning head also shifts as a whole, as the neck is behind it: shift as a share of the bulge's motion.
NECK_SHARE = 0.35
# The soft mask is 1 inside the head's ellipse and falls to 0 at this many times its half axes.
MASK_REACH = 1.75


@dataclass(frozen=True)
class HeadMotion:
    """Strengths of a head's movements; every dial is in [0, 1], and 0 is none."""

    nod: float = 0.0
    shake: float = 0.0
    tilt: float = 0.0
    approach: float = 0.0
    sway: float = 0.0
    jitter: float = 0.0

    @property
    def amplitude(self) -> float:
        """Return the strongest movement except jitter, in [0, 1]."""
        return max(self.nod, self.shake, self.tilt, self.approach, self.sway)


@dataclass(frozen=True)
class HeadPose:
    """Where the head is in one frame; the default is the portrait as it was taken.

    Attributes:
        pitch: radians, positive looks down.
        yaw: radians, positive turns the nose to the picture's right.
        roll: radians about the neck, positive leans to the picture's right.
        scale: size of the head, 1 as taken.
        shift_px: (right, down).
    """

    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0
    scale: float = 1.0
    shift_px: tuple[float, float] = (0.0, 0.0)


def head_poses(
    motion: HeadMotion, *, frames: int, fps: float, rng: np.random.Generator, in_turn: bool = False
) -> Iterator[HeadPose]:
    """Yield the pose in each frame of a clip.

    Nod, shake, tilt and sway are sine waves with random phases; approach is one smooth move from the
    first frame to the last; jitter is a sum of fast waves with random pitch, in both directions and in roll.

    Args:
        rng: for the phases and the jitter; the draws are the same for every motion.
        in_turn: whether nod, shake, tilt, sway and jitter follow one another, each swelling and fading in a fifth of
            the clip, rather than last throughout.
    """
    nod, shake, tilt, sway = rng.uniform(0, 2 * np.pi, 4).tolist()
    jitter_hz = rng.uniform(*JITTER_BAND_HZ, (3, JITTER_WAVES))
    jitter_start = rng.uniform(0, 2 * np.pi, (3, JITTER_WAVES))
    for frame in range(frames):
        turns = 2 * math.pi * frame / fps
        right, down, lean = (np.sin(turns * jitter_hz + jitter_start).sum(axis=1) / math.sqrt(JITTER_WAVES)).tolist()
        done = frame / max(frames - 1, 1)
        nods, shakes, tilts, sways, trembles = (_swell(5 * done - turn) if in_turn else 1.0 for turn in range(5))
        yield HeadPose(
            pitch=math.radians(NOD_DEG) * motion.nod * nods * math.sin(turns * NOD_HZ + nod),
            yaw=math.radians(SHAKE_DEG) * motion.shake * shakes * math.sin(turns * SHAKE_HZ + shake),
            roll=math.radians(TILT_DEG) * motion.tilt * tilts * math.sin(turns * TILT_HZ + tilt)
            + math.radians(JITTER_TILT_DEG) * motion.jitter * trembles * lean,
            scale=1 + APPROACH_GAIN * motion.approach * done**2 * (3 - 2 * done),
            shift_px=(
                SWAY_PX * motion.sway * sways * math.sin(turns * SWAY_HZ + sway)
                + JITTER_PX * motion.jitter * trembles * right,
                JITTER_PX * motion.jitter * trembles * down,
            ),
        )


def _swell(turn: float) -> float:
    """Return the strength of a motion at this share of its turn: 1 in the middle, 0 before and after it."""
    return math.sin(math.pi * turn) ** 2 if 0 < turn < 1 else 0.0


class HeadWarp:
    """Bends a portrait so that its head takes a pose.

    Args:
        size: (width, height) of the picture, px.
        head: (x, y, half width, half height) of an ellipse around face and hair, px.
        face: (x, y) of the nose, where the face comes nearest to the camera, px.
        neck: (x, y) about which the head leans, px.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        head: tuple[float, float, float, float],
        face: tuple[float, float],
        neck: tuple[float, float],
    ) -> None:
        # Beyond this window the mask is 0, and the picture stays as it is.
        left, top = (max(int(head[axis] - MASK_REACH * head[axis + 2]), 0) for axis in (0, 1))
        right, bottom = (int(head[axis] + MASK_REACH * head[axis + 2]) + 1 for axis in (0, 1))
        self._window = np.s_[top:bottom, left:right]
        width, height = size
        self._x, self._y = np.meshgrid(
            np.arange(width, dtype=np.float32)[left:right], np.arange(height, dtype=np.float32)[top:bottom]
        )
        self._half_width, self._half_height = head[2], head[3]
        self._face, self._neck = face, neck
        radius = np.hypot((self._x - head[0]) / head[2], (self._y - head[1]) / head[3])
        inward = np.clip((MASK_REACH - radius) / (MASK_REACH - 1), 0, 1)
        self._mask = inward**2 * (3 - 2 * inward)

    def __call__(self, picture: np.ndarray, pose: HeadPose) -> np.ndarray:
        """Return the picture with its head in that pose.

        Args:
            picture: [height, width, 3] of the size stated above, any type that OpenCV interpolates.
        """
        depth_px = BULGE_DEPTH * self._half_width
        right_px, down_px = depth_px * math.sin(pose.yaw), depth_px * math.sin(pose.pitch)
        x, y = self._undo_move(pose, right_px * NECK_SHARE, down_px * NECK_SHARE)
        # The field says where the picture's points go, but we need where each one came from: four rounds of the
        # fixed point come closer than 0.1 px, as the bulge's slope stays well below 1.
        from_x, from_y = x, y
        for _ in range(4 if right_px or down_px else 0):
            bulge = self._bulge(from_x, from_y)
            from_x, from_y = x - right_px * bulge, y - down_px * bulge
        bent = picture.copy()
        bent[self._window] = cv2.remap(picture, from_x, from_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        return bent

    def _undo_move(self, pose: HeadPose, right_px: float, down_px: float) -> tuple[np.ndarray, np.ndarray]:
        """Undo shift, roll about the neck and scale about the nose, to the extent that the mask lets the head move."""
        x = self._x - (pose.shift_px[0] + right_px)
        y = self._y - (pose.shift_px[1] + down_px)
        cos, sin = math.cos(pose.roll), math.sin(pose.roll)
        x, y = x - self._neck[0], y - self._neck[1]
        x, y = cos * x + sin * y + self._neck[0], cos * y - sin * x + self._neck[1]
        x = self._face[0] + (x - self._face[0]) / pose.scale
        y = self._face[1] + (y - self._face[1]) / pose.scale
        return self._x + self._mask * (x - self._x), self._y + self._mask * (y - self._y)

    def _bulge(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return how far the head stands out towards the camera: 1 at the nose, smoothly 0 from its outline on."""
        radius2 = ((x - self._face[0]) / self._half_width) ** 2 + ((y - self._face[1]) / self._half_height) ** 2
        height2 = np.clip(1 - radius2, 0, None)
        return height2 * np.sqrt(height2)
