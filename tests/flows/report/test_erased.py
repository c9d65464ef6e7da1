"""Erasing a person from a store that was used for everything: training, an evaluation, scores and a page."""

from __future__ import annotations

import shutil

from every_byte import files_with
from report_store import BREAKOUT, REFUSED, SCRIPT, open_report_store

from flows.config.settings import ReportSettings
from flows.pipeline.report import report
from storage import FeatureStore
from storage.maintenance.erasing import erase, find_traces


def test_nothing_of_people_is_left_after_training_evaluation_scores_and_a_page(tmp_path, report_store):
    shutil.copytree(report_store.config.store.path.parent, tmp_path / "copy")
    own = open_report_store(tmp_path / "copy")
    store, root = FeatureStore(own.config.store.path), own.config.store.path
    trained = "p000/0000.mp4"
    config = own.config.model_copy(update={"report": ReportSettings(clips=(SCRIPT, BREAKOUT))})
    page = report.fn(config, own.videos, own.model)
    families = (own.families.static, own.families.dynamic)
    features = [video for family in families for video in store.read(family, [SCRIPT, BREAKOUT, trained])]
    names = {SCRIPT, BREAKOUT, REFUSED, trained}
    texts = {*names, *(video.video_sha256 for video in features)}
    before = files_with(root, texts, features)
    assert {name.split("/")[0] for name in before} >= {"manifest", "features", "failures", "scores", "reports"}
    strange = find_traces(root, [SCRIPT, BREAKOUT, REFUSED])
    assert page in strange.files
    assert strange.trained == []
    traces = find_traces(root, names)
    assert (traces.trained, traces.unknown) == (["traits/1"], [])
    assert {path.name.split("-")[0] for path in traces.of_all} >= {"evaluation"}
    count = len(store.done(own.families.static))
    erase(root, traces)
    assert files_with(root, texts, features) == set()
    assert len(FeatureStore(root).done(own.families.static)) == count - 3
