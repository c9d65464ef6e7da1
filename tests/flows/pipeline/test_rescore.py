"""A new model scores what an archive holds, from the cache, with neither videos nor weights at hand."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
from drawn_store import draw_store
from rendered_report import render_report
from scipy import stats

from flows.archive.drift import drifts_of
from flows.archive.families import families_of
from flows.archive.models import ModelReference
from flows.archive.videos import known_videos
from flows.config.load import load_config
from flows.pipeline.score import rescore, score
from flows.pipeline.train import train
from flows.session.errors import UserError
from storage.models.serializer import ModelSerializer
from storage.tables.scores import ScoreStore

KINDS = ("specified", "bilinear")
EMPTY = {"TRAITLINE_ASSETS": "/nowhere", "XDG_CACHE_HOME": "/nowhere"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A store of drawn features with two models, the first of which has scored everything."""
    folder = tmp_path_factory.mktemp("archive")
    labels, _ = draw_store(folder, people=20, clips_each=3)
    flags = {"weights": "random", "store.path": folder / "store", "labels": labels}
    for kind in KINDS:
        config = load_config(
            flags=flags, assignments=[f"train.kind={kind}", "train.epochs=2", "train.keep_useless=true"]
        )
        videos = known_videos(config.store.path, families_of(config))
        model = train.fn(config, videos)
        if kind == KINDS[0]:
            score.fn(config, videos, model)
    return folder / "store"


def scores(store, version: str) -> dict[str, tuple[float, ...]]:
    return {row.video_id: row.traits for row in ScoreStore(store).read("traits", version)}


def test_a_new_model_scores_the_archive_and_old_scores_stay(archive, traitline):
    before = scores(archive, "1")
    assert len(before) == 60
    assert not scores(archive, "2")
    # The settings' weights are pretrained here, and are nowhere; the model knows what it was trained on.
    done = traitline("rescore", "--store", archive, "--model", "traits/2", **EMPTY)
    assert done.returncode == 0, done.stderr
    now = scores(archive, "2")
    assert now.keys() == before.keys()
    assert now != before
    assert scores(archive, "1") == before
    assert re.search(r"60 videos.*traits/2", done.stderr)
    shown = re.search(r"│ extraversion +│ (.*) │", done.stdout).group(1).split("│")
    column = 2
    first, second = (np.array([one[name][column] for name in before]) for one in (before, now))
    truth = [first.mean(), second.mean(), first.std(), second.std()]
    assert [float(cell) for cell in shown[:4]] == pytest.approx(truth, abs=6e-4)
    assert float(shown[5]) == pytest.approx(stats.ks_2samp(first, second).statistic, abs=6e-4)
    assert float(shown[6]) == pytest.approx(stats.spearmanr(first, second).statistic, abs=6e-4)


def test_the_report_shows_how_scores_moved(archive):
    config = load_config(flags={"store.path": archive, "weights": "random"})
    families = families_of(config)
    model = ModelReference("traits", "2")
    page = render_report(config, families, known_videos(config.store.path, families), model, datetime.now(UTC))
    table = page[page.index('<table id="drift-0"') :].split("</table>")[0]
    assert "traits/2 beside traits/1" in table
    for version in ("1", "2"):
        for mean in np.mean(list(scores(archive, version).values()), axis=0):
            assert f">{mean:.3f}</td>" in table
    assert re.search(r"\b60 videos[^.<]*\b60\b[^.<]*\b60\b", page)


def test_a_second_time_there_is_nothing_to_score(archive):
    model = ModelReference("traits", "1")
    assert rescore.fn(load_config(flags={"store.path": archive}), model).scored_now == 0
    assert ScoreStore(archive).table("traits", "1").version() == 1


def test_only_what_a_killed_run_left_is_scored(archive):
    """Scores are there in whole parts; a run that was killed before its last part leaves the rest to the next."""
    store = ScoreStore(archive)
    rows = list(store.read("traits", "1"))
    version = ModelSerializer(archive).versions("traits")[-1]
    shutil.rmtree(archive / "scores" / "traits" / version)
    store.write("traits", version, rows[:45])
    assert rescore.fn(load_config(flags={"store.path": archive}), ModelReference("traits", version)).scored_now == 15
    assert {name: scores(archive, version)[name] for name in list(scores(archive, "1"))[:45]} == {
        row.video_id: row.traits for row in rows[:45]
    }
    # These two runs are compared too: the rows that were there, and the fifteen.
    kinds = [(drift.previous_videos, drift.videos) for drift in drifts_of(archive, ModelReference("traits", version))]
    assert kinds == [(60, 60), (45, 15)]


def test_features_that_are_gone_are_said_to_be(archive, tmp_path):
    metadata = ModelSerializer(archive).metadata("traits", "1")
    family = archive / "features" / "static" / metadata["static_key"]
    family.rename(tmp_path / "away")
    try:
        with pytest.raises(UserError, match=metadata["static_key"]):
            rescore.fn(load_config(flags={"store.path": archive}), ModelReference("traits", "1"))
    finally:
        (tmp_path / "away").rename(family)
