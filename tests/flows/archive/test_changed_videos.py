"""What is shown of a video whose file changed: what is known of its present bytes, and nothing of other bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.archive.families import families_of
from flows.archive.models import ModelReference
from flows.archive.outcomes import export_rows
from flows.archive.videos import VideoFile, known_videos, videos_of
from flows.config.load import load_config
from flows.config.settings import RunConfig
from storage import Failure, FailureLog, FeatureStore, Score, ScoreStore, Unscored, VideoFeatures
from storage.maintenance.rewriting import plan_merges, rewrite
from storage.maintenance.survey import still_refused
from storage.tables.seen import SeenVideos

MODEL = ModelReference("traits", "1")
Shown = tuple[str, str, str]


class Archive:
    """One video, `a.mp4`, among others, and runs over it that find its bytes good or bad."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "videos" / "a.mp4"
        self.file.parent.mkdir()
        (folder / "videos" / "z.mp4").write_bytes(b"z")
        self.config: RunConfig = load_config(
            flags={"videos": folder / "videos", "store.path": folder / "store", "weights": "random"}
        )
        self.families = families_of(self.config)
        self.store = FeatureStore(self.config.store.path)

    def run(self, content: bytes | None, *, bad: str = "") -> None:
        """A run: it looks at the videos, and does of `a.mp4` what is not done yet."""
        if content is None:
            self.file.unlink()
            self.file.symlink_to("nowhere")
        else:
            self.file.unlink(missing_ok=True)
            self.file.write_bytes(content)
        video = next(video for video in videos_of(self.config) if video.video_id == "a.mp4")
        log, which = FailureLog(self.config.store.path), {video.video_id: video.sha256}
        if self.store.has(self.families.static, which) or log.attempts(which, self.families.features):
            return
        if bad:
            log.add([Failure(video.video_id, video.sha256, self.families.features, "faces", bad, "what is wrong", 1)])
        else:
            self.extract(video)

    def extract(self, video: VideoFile) -> None:
        for family in (self.families.static, self.families.dynamic):
            quality = {column: np.ones(1, np.float32) for column in family.quality}
            vectors = np.zeros((1, family.dim), np.float32)
            row = VideoFeatures(video.video_id, video.sha256, vectors, np.zeros(1), np.ones(1), quality)
            self.store.write(family, [row])
        keys = (self.families.static.key, self.families.dynamic.key)
        score = Score(video.video_id, video.sha256, (0.5,) * 5, 0.9, 1, 1, *keys, "random")
        ScoreStore(self.config.store.path).write(MODEL.name, MODEL.version, [score])

    def shown(self) -> Shown:
        """What the CSV says with the folder and without it, and what `failures list` says, of `a.mp4`."""
        kinds = []
        for videos in (videos_of(self.config), known_videos(self.config.store.path, self.families)):
            rows = {row.video_id: row for row in export_rows(self.config.store.path, self.families, videos, MODEL)}
            row = rows["a.mp4"]
            kinds.append(row.reason if isinstance(row, Unscored) else "scored")
        root = self.config.store.path
        refused = still_refused(root)
        (listed,) = {row.reason for row in refused if row.video_id == "a.mp4"} or {"scored"}
        return (*kinds, listed)


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive(tmp_path)


def all_say(reason: str) -> Shown:
    return (reason, reason, reason)


def test_a_refusal_of_new_bytes_replaces_the_score_of_the_old_ones_until_those_are_back(archive):
    archive.run(b"good")
    assert archive.shown() == all_say("scored")
    archive.run(b"bad", bad="no_face")
    assert archive.shown() == all_say("no_face")
    archive.run(b"good")
    assert archive.shown() == all_say("scored")
    archive.run(b"bad")
    assert archive.shown() == all_say("no_face")


def test_a_score_of_new_bytes_replaces_the_refusal_of_the_old_ones_until_those_are_back(archive):
    archive.run(b"bad", bad="no_face")
    assert archive.shown() == all_say("no_face")
    archive.run(b"good")
    assert archive.shown() == all_say("scored")
    archive.run(b"bad")
    assert archive.shown() == all_say("no_face")
    archive.run(b"good")
    assert archive.shown() == all_say("scored")


def test_of_two_refusals_that_of_the_present_bytes_is_shown(archive):
    # By their digests, the first sorts before the second and after the third.
    archive.run(b"bad", bad="no_face")
    archive.run(b"worse", bad="truncated")
    assert archive.shown() == all_say("truncated")
    archive.run(b"bad")
    assert archive.shown() == all_say("no_face")


def test_a_file_that_cannot_be_read_is_unreadable_until_it_can(archive):
    archive.run(b"good")
    archive.run(None, bad="unreadable")
    assert archive.shown() == all_say("unreadable")
    archive.run(b"good")
    assert archive.shown() == all_say("scored")


def test_a_file_that_no_run_could_read_yet_is_unreadable_in_the_csv(archive):
    archive.run(b"good")
    archive.file.unlink()
    archive.file.symlink_to("nowhere")
    assert archive.shown()[:2] == ("unreadable", "unreadable")


def test_new_bytes_that_no_run_has_come_to_have_no_score(archive):
    archive.run(b"good")
    archive.file.write_bytes(b"new bytes")
    assert archive.shown() == ("not_extracted", "not_extracted", "scored")  # and no attempt to list


def test_merging_shards_brings_no_old_score_back(archive):
    archive.run(b"good")
    archive.run(b"bad", bad="no_face")
    other = next(video for video in videos_of(archive.config) if video.video_id == "z.mp4")
    archive.extract(other)
    for family in (archive.families.static, archive.families.dynamic):
        for sources in plan_merges(archive.store, family):
            rewrite(archive.store, family, sources)
        assert len(archive.store.shards(family)) == 1
    assert archive.shown() == all_say("no_face")


def test_what_was_seen_is_written_once(archive):
    archive.run(b"good")
    videos_of(archive.config)
    assert SeenVideos(archive.config.store.path).table.version() == 1
