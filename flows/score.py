"""The flow `score`: trait scores for all cached features that a model has not scored yet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from prefect import flow

from flows import console
from flows.clips import CachedClip, read_clips, ready_videos
from flows.config import RunConfig
from flows.errors import UserError
from flows.families import Families, families_of
from flows.manifest import Archive
from flows.models import ModelReference
from flows.uncertainty import quality_of, stored_uncertainty
from fusion.uncertainty import Judged
from storage.models import ModelSerializer
from storage.scores import Score, ScoreStore

CLIPS_PER_COMMIT = 4096


@flow(name="score", validate_parameters=False)
def score(config: RunConfig, videos: Archive, model: ModelReference) -> int:
    """Score the videos whose features are there and that this model version has not scored from these features.

    Returns:
        Number of videos scored now.

    Raises:
        UserError: the model was trained on features made in another way.
    """
    from fusion.model import CompletePersonalityModel  # registers the classes that a saved model is made of
    from fusion.scoring import predict

    families = families_of(config)
    serializer = ModelSerializer(config.store.path)
    _check_features(serializer.metadata(model.name, model.version), families, model)
    scores = ScoreStore(config.store.path)
    known = {
        row.video_id: row.video_sha256
        for row in scores.read(model.name, model.version)
        if (row.static_key, row.dynamic_key) == (families.static.key, families.dynamic.key)
    }
    wanted = {video.video_id: video.sha256 for video in videos if known.get(video.video_id) != video.sha256}
    ready = ready_videos(config, families, wanted)
    if not ready:
        console.say(f"Score: {model} has scored all videos with features before; nothing to score")
        return 0
    network, metadata = serializer.load(model.name, model.version)
    if not isinstance(network, CompletePersonalityModel):
        raise UserError(f"{model} is a {type(network).__name__} and no model of this program's; name another")
    uncertainty = stored_uncertainty(config, metadata)
    count = 0
    clips = read_clips(config, families, ready)
    with console.stage("Score", len(ready)) as stage:
        while some := list(islice(clips, CLIPS_PER_COMMIT)):
            traits = predict(network, (clip.tokens for clip in some))
            judged = uncertainty.judge(traits, quality_of(some))
            scores.write(model.name, model.version, _rows(some, traits, judged, families, config.weights))
            count += len(some)
            for _ in some:
                stage.advance()
    return count


def _check_features(metadata: dict, families: Families, model: ModelReference) -> None:
    trained_on = (metadata["static_key"], metadata["dynamic_key"])
    if trained_on != (families.static.key, families.dynamic.key):
        raise UserError(
            f"{model} was trained on features static:{trained_on[0]} dynamic:{trained_on[1]}, but these settings give "
            f"{families.features}; use the settings that it was trained with (weights: {metadata['weights']})"
        )


def _rows(
    clips: list[CachedClip], traits: np.ndarray, judged: Judged, families: Families, weights: str
) -> Iterator[Score]:
    for row, (clip, values) in enumerate(zip(clips, traits, strict=True)):
        yield Score(
            video_id=clip.tokens.video_id,
            video_sha256=clip.sha256,
            traits=tuple(values.tolist()),
            face_coverage=clip.face_coverage,
            static_tokens=len(clip.tokens.static),
            dynamic_tokens=len(clip.tokens.dynamic),
            static_key=families.static.key,
            dynamic_key=families.dynamic.key,
            weights=weights,
            abstain=judged.abstain[row],
            low=None if judged.low is None else tuple(judged.low[row].tolist()),
            high=None if judged.high is None else tuple(judged.high[row].tolist()),
        )
