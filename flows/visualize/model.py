"""Pictures of a trained model on one clip of the store: attention, time line, and Grad-CAM of a trait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

from extractors.pictures.layers import grad_cam
from extractors.pictures.static import FRAMES_ACROSS, placed, plot_overlays
from flows.archive.clips import clip_tokens
from flows.archive.families import Families, families_of, networks_of
from flows.archive.models import ModelReference, check_features, chosen_model, load_model
from flows.archive.videos import videos_folder
from flows.config.settings import RunConfig
from flows.session.errors import UserError, did_you_mean
from flows.visualize.clip import faces_of, frames_throughout, prepared, static_network
from flows.visualize.files import heading_of
from fusion.clips.tokens import pad_batch
from fusion.labels.matching import match_names
from fusion.traits import TRAITS
from storage.files.paths import StorePath
from storage.models.serializer import ModelSerializer
from storage.shards.store import FeatureStore

if TYPE_CHECKING:
    from fusion.model.kinds import PersonalityModel
    from fusion.pictures.timeline import TimeLine

_WHERE_FEATURES_ARE = "; `traitline extract` makes them, and `traitline failures list` shows rejected videos"
MOMENTLESS = "The scores of this model do not depend on single moments"
STRIP_FRAMES = 9
MOVING_FRAMES_PER_S = 5.0


@dataclass(frozen=True, eq=False)
class SeenClip:
    """A model and its inputs from one clip.

    Args:
        batch: one clip, as `fusion.clips.tokens.pad_batch` makes it.
        start_s: float64 [Td], of the motion tokens.
        end_s: float64 [Td].
    """

    video_id: str
    name: ModelReference
    model: PersonalityModel
    batch: dict[str, np.ndarray]
    start_s: np.ndarray
    end_s: np.ndarray

    @property
    def face_time_s(self) -> np.ndarray:
        """Return the time of each face token, [Ts]."""
        return np.asarray(self.batch["static_time_s"][0])

    @property
    def motion_time_s(self) -> np.ndarray:
        """Return the middle of each window of motion, [Td]."""
        return np.asarray(self.batch["dynamic_time_s"][0])

    def attention(self) -> np.ndarray:
        """Return the attention weights of the clip, [heads, Ts, Td]."""
        from fusion.pictures.attention import get_attention_weights

        return np.asarray(get_attention_weights(self.model, self.batch)[0])

    def time_line(self, trait: str) -> TimeLine:
        """Return the attention to each window of motion, and its effect on a trait."""
        from fusion.model.relevance import attention_relevance
        from fusion.pictures.timeline import TimeLine

        relevance = attention_relevance(self.model, self.batch, trait)[0]
        return TimeLine(self.attention(), relevance, self.start_s, self.end_s, trait)

    def heading(self, weights: str, text: str) -> str:
        """Return the heading of a picture of attention, which says so if attention has no effect on any score."""
        line = heading_of(weights, f"{text}: {self.video_id}, {self.name}")
        has_effect = any(self.time_line(trait).spoken().any() for trait in TRAITS)
        return line if has_effect else f"{line}\n{MOMENTLESS}."


def see_clip(config: RunConfig, video_id: str, *, for_attention: bool = True) -> SeenClip:
    """Load the chosen model and the cached features of one video.

    Args:
        config: with settled weights.
        video_id: as the store has it, or as labels may name it, see `fusion.labels.matching.match_names`.
        for_attention: whether the model must attend to several tokens, which it does not in vector form.

    Raises:
        UserError: no such model, or it was trained on other features or has the wrong form; no features of that video
            in the store.
    """
    name = chosen_model(config)
    families = families_of(config)
    metadata = ModelSerializer(config.store.path).metadata(name.name, name.version)
    check_features(name, metadata, families, networks_of(config))
    if for_attention and metadata["settings"].get("form") == "vector":
        raise UserError(f"{name} is in vector form: its attention has only one token to attend to; name another")
    store = FeatureStore(config.store.path)
    known = store.done(families.static).keys() & store.done(families.dynamic).keys()
    if video_id not in known:
        video_id = _known_as(video_id, sorted(known))
    return see_clips(config.store.path, families, name, [video_id])[video_id]


def _known_as(name: str, known: Sequence[str]) -> str:
    (found,) = match_names([name], known) or (None,)
    if found is None:
        raise UserError(f"the store has no features of {name}{did_you_mean(name, known) or _WHERE_FEATURES_ARE}")
    return known[found]


def see_clips(
    root: StorePath, families: Families, name: ModelReference, video_ids: Sequence[str]
) -> dict[str, SeenClip]:
    """Load a model and the cached features of those videos that the store has.

    Raises:
        UserError: the model is not of this program's class.
    """
    store = FeatureStore(root)
    static = {row.video_id: row for row in store.read(families.static, video_ids)}
    dynamic = {row.video_id: row for row in store.read(families.dynamic, video_ids)}
    model, _ = load_model(root, str(name))
    seen = {}
    for video_id in static.keys() & dynamic.keys():
        batch, motion = pad_batch([clip_tokens(static[video_id], dynamic[video_id])]), dynamic[video_id]
        seen[video_id] = SeenClip(video_id, name, model, batch, motion.start_s, motion.end_s)
    return seen


def draw_trait_grad_cam(config: RunConfig, video_id: str, trait: str, layer: str, most: int) -> Figure:
    """Draw Grad-CAM of a trait's score over the faces: regions that raise it above, regions that lower it below.

    The gradient of the score with respect to the static tokens is propagated through ResNet-50 to the layer's maps.
    Motion tokens come from the store; faces are cut out of the video again.

    Raises:
        UserError: as `see_clip`; the video is not in the folder, or its faces differ from those in the store.
        extractors.errors.LayerError: the layer is unknown.
    """
    clip = see_clip(config, video_id, for_attention=False)
    faces = faces_of(config, video_file(config, clip.video_id))
    from fusion.model.relevance import face_gradient

    times = np.array([face.time_s for face in faces], np.float32)
    if len(faces) != len(clip.face_time_s) or np.abs(times - clip.face_time_s).max() > 1e-3:
        raise UserError(f"the faces of {clip.video_id} have changed since its features were made; extract it again")
    gradient = face_gradient(clip.model, clip.batch, trait)[0]
    chosen = np.unique(np.linspace(0, len(faces) - 1, min(most, len(faces))).round().astype(int)).tolist()
    network = static_network(config).model
    crops = prepared([faces[row].crop for row in chosen])
    maps = [values for sign in (1, -1) for values in grad_cam(network, crops, sign * gradient[chosen], layer)]
    shown = [faces[row] for row in chosen]
    return plot_overlays(
        [face.frame for face in shown] * 2,
        [placed(values, face.view, *face.frame.shape[:2]) for values, face in zip(maps, shown * 2, strict=True)],
        [f"{face.time_s:.1f} s, {effect}" for effect in ("raises it", "lowers it") for face in shown],
        heading=heading_of(config.weights, f"What in the faces moves {trait}: {clip.video_id}, {clip.name}, {layer}"),
        unit="Grad-CAM",
        across=min(len(shown), FRAMES_ACROSS),
    )


def draw_attention_map(config: RunConfig, video_id: str) -> Figure:
    """Draw a panel per head. Raises UserError as `see_clip`, and for a model in vector form."""
    clip = see_clip(config, video_id)
    from fusion.pictures.attention import plot_attention_map

    return plot_attention_map(
        clip.attention(),
        static_time_s=clip.face_time_s,
        dynamic_time_s=clip.motion_time_s,
        title=clip.heading(config.weights, "Attention"),
    )


def draw_heads(config: RunConfig, video_id: str) -> Figure:
    """Draw the heads' spread and distance. Raises UserError as `draw_attention_map`."""
    clip = see_clip(config, video_id)
    from fusion.pictures.heads import plot_head_scores

    heading = clip.heading(config.weights, "How sharp and how far heads look")
    return plot_head_scores(clip.attention(), clip.face_time_s, clip.motion_time_s, heading=heading)


def draw_relations(config: RunConfig, video_id: str) -> Figure:
    """Draw which face looks at which motion. Raises UserError as `draw_attention_map`."""
    clip = see_clip(config, video_id)
    from fusion.pictures.heads import plot_token_relations

    heading = clip.heading(config.weights, "Which motion each face looks at")
    return plot_token_relations(clip.attention(), clip.face_time_s, clip.motion_time_s, heading=heading)


def draw_time_line(config: RunConfig, video_id: str, trait: str, *, moving: bool) -> Figure | FuncAnimation:
    """Draw attention, and its effect on a trait, below the clip's frames.

    Raises:
        UserError: as `see_clip`; the video is not in the folder or cannot be used; a model in vector form.
    """
    clip = see_clip(config, video_id)
    from fusion.pictures.timeline import animate_time_line, plot_time_line

    length_s = float(clip.end_s.max())
    count = max(2, round(length_s * MOVING_FRAMES_PER_S)) if moving else STRIP_FRAMES
    found = frames_throughout(config, video_file(config, clip.video_id), length_s, count)
    draw = animate_time_line if moving else plot_time_line
    heading = clip.heading(config.weights, f"Which moments raised or lowered {trait}")
    return draw(clip.time_line(trait), list(found.values()), np.array(list(found)), heading=heading)


def video_file(config: RunConfig, video_id: str) -> Path:
    """Return the file of a video.

    Raises:
        UserError: the settings name no videos folder, or the video is not in it.
    """
    folder = videos_folder(config)
    path = folder / video_id
    # Ids in a store are untrusted, and must not lead out of the folder.
    if PurePosixPath(video_id).is_absolute() or ".." in PurePosixPath(video_id).parts or not path.is_file():
        raise UserError(f"there is no {video_id} in {folder}")
    return path
