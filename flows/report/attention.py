"""Time lines of a few clips in the report: attention, and the moments that affected a trait."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from flows.archive.families import Families
from flows.archive.models import ModelReference
from flows.config.settings import RunConfig
from flows.report.charts import Scale, time_line
from flows.report.drawing import Drawing
from flows.report.summary import Summary, extremes
from flows.session.errors import UserError, did_you_mean
from fusion.labels.matching import match_names
from fusion.traits import TRAITS

FRAMES = 8
FRAME_PX = 120
JPEG_QUALITY = 70
WITHOUT_MOMENTS = (
    "It uses only means over a whole clip, and gives no weight to anything else (traitline models show lists the "
    "weights). Train with train.kind=specified to see attention."
)


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture of a clip: its time in seconds, and a JPEG as a data URL."""

    time_s: float
    address: str


@dataclass(frozen=True, slots=True)
class ShownClip:
    """A clip that the report shows: the reason, its score, its time line, and frames if the settings ask for them."""

    video_id: str
    why: str
    score: float
    drawing: Drawing
    frames: list[Frame]


@dataclass(frozen=True, slots=True)
class Attention:
    """The clips that the report shows, or one line on why there are none, and notes."""

    clips: list[ShownClip]
    absent: str = ""
    notes: tuple[str, ...] = ()


def attention_of(
    config: RunConfig, families: Families, model: ModelReference, form: str, summary: Summary
) -> Attention:
    """Draw the clips that `report.clips` names; by default those with the highest and the lowest score of each trait.

    Raises:
        UserError: a clip that was named has no score; or frames are wanted of videos whose folder is not named.
    """
    if config.report.frames and config.videos is None:
        raise UserError("frames are taken from the videos; give their folder with --videos DIR")
    chosen = _chosen(config.report.clips, summary)
    if form == "vector":
        return Attention([], "The model is in vector form: its attention has only one token to attend to.")
    if not chosen:
        return Attention([], "No video has a score.")
    from flows.visualize.model import MOMENTLESS, see_clips  # TensorFlow takes seconds to import

    seen = see_clips(config.store.path, families, model, sorted({summary.names[row] for row, _, _ in chosen}))
    kept = [(summary.names[row], row, trait, why) for row, trait, why in chosen if summary.names[row] in seen]
    gone = {summary.names[row] for row, _, _ in chosen} - seen.keys()
    notes = [f"{video_id} is left out: its features are no longer in the store." for video_id in sorted(gone)]
    if not kept:
        return Attention([], "No clip is shown: their features are no longer in the store.")
    lines = [seen[video_id].time_line(trait) for video_id, _, trait, _ in kept]
    if not any(line.spoken().any() for line in lines):
        if not config.report.frames:
            return Attention([], f"{MOMENTLESS}, so there are no charts. {WITHOUT_MOMENTS}")
        notes.append(f"{MOMENTLESS}, so the lower charts are empty. {WITHOUT_MOMENTS}")
    scale = Scale.of(lines)
    pictures: dict[str, list[Frame]] = {}
    shown = []
    for (video_id, row, trait, why), line in zip(kept, lines, strict=True):
        if config.report.frames and video_id not in pictures:
            try:
                pictures[video_id] = _frames(config, video_id, float(line.end_s.max()))
            except UserError as error:
                pictures[video_id] = []
                notes.append(f"No frames of {video_id}: {error}.")
        drawing = time_line(f"Attention over time: {video_id}, {trait}", line, scale)
        score = float(summary.scores[row, TRAITS.index(trait)])
        shown.append(ShownClip(video_id, why, score, drawing, pictures.get(video_id, [])))
    return Attention(shown, notes=tuple(notes))


def _chosen(clips: Sequence[str], summary: Summary) -> list[tuple[int, str, str]]:
    """Return row, trait and reason, in the order of the traits."""
    if not clips:
        pairs = [(row, reason) for row, reasons in extremes(summary, 1) for reason in reasons]
        found = [(row, reason.split()[1], f"{reason.split()[0]}est {reason.split()[1]}") for row, reason in pairs]
        return sorted(found, key=lambda item: (TRAITS.index(item[1]), item[2]))
    wanted = list(dict.fromkeys(clips))
    row_of = {wanted[place]: row for row, place in match_names(wanted, summary.names).items()}
    unknown = [name for name in wanted if name not in row_of]
    if unknown:
        raise UserError(
            f"{unknown[0]} has no score"
            f"{did_you_mean(unknown[0], summary.names) or '; name clips as the column video_id of the trait CSV does'}"
        )
    rows = [row_of[name] for name in wanted]
    # for a named clip, the trait in which it differs most from the others
    spread = summary.scores.std(axis=0) + 1e-9
    far = np.abs(summary.scores[rows] - summary.scores.mean(axis=0)) / spread
    return [(row, TRAITS[place], TRAITS[place]) for row, place in zip(rows, far.argmax(axis=1).tolist(), strict=True)]


def _frames(config: RunConfig, video_id: str, length_s: float) -> list[Frame]:
    from flows.visualize.clip import frames_throughout
    from flows.visualize.model import video_file

    found = frames_throughout(config, video_file(config, video_id), length_s, FRAMES)
    return [Frame(time_s, _address(picture)) for time_s, picture in found.items()]


def _address(picture: np.ndarray) -> str:
    height, width = picture.shape[:2]
    size = (FRAME_PX, max(1, round(FRAME_PX * height / width)))
    small = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
