"""Training: it learns what was planted, alike every time, and never sees a person on both sides."""

import json
import random
import threading
import time
from dataclasses import replace

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from fusion.clips.batches import BATCHES_AHEAD
from fusion.clips.moments import Moments
from fusion.clips.sources import ClipsInMemory
from fusion.clips.tokens import ClipTokens, pad_batch
from fusion.errors import TrainingError
from fusion.labels.split import split_by_subject
from fusion.model.model import CompletePersonalityModel
from fusion.model.scoring import predict
from fusion.settings import TrainSettings
from fusion.training.fit import EpochBatches, LabelledSource
from fusion.training.train import train
from fusion.traits import TRAITS


def planted(count, *, seed=0, skill=1.0):
    """Clips of 3 to 6 face and 2 to 4 motion tokens, far from standardised; traits follow from two directions."""
    rng = np.random.default_rng(seed)
    clips, labels = [], []
    for index in range(count):
        static_count, dynamic_count = rng.integers(3, 7), rng.integers(2, 5)
        look, motion = rng.uniform(-1, 1, size=2)
        static = rng.normal(size=(static_count, 12)) * 0.3
        dynamic = rng.normal(size=(dynamic_count, 8)) * 0.3
        static[:, 3] += look
        dynamic[:, 5] += motion
        clips.append(
            ClipTokens(
                f"clip{index}.mp4",
                (50 + 20 * static).astype(np.float32),
                np.linspace(0, 10, static_count, dtype=np.float32),
                (0.01 * dynamic - 3).astype(np.float32),
                np.linspace(1, 9, dynamic_count, dtype=np.float32),
            )
        )
        signal = np.array([look, motion, look - motion, -look, -motion]) * 0.15
        labels.append(0.55 + skill * signal + (1 - skill) * rng.normal(size=5) * 0.1)
    return clips, np.array(labels, np.float32), [f"person{index // 2}" for index in range(count)]


FIELDS = ("static", "static_time_s", "dynamic", "dynamic_time_s")
SPECIFIED = TrainSettings(kind="specified")
SHORT = SPECIFIED.model_copy(update={"epochs": 25, "patience": 25})


@pytest.mark.parametrize(("form", "loss"), [("sequence", "mse"), ("vector", "mae")])
def test_planted_traits_are_learned_on_people_never_seen(form, loss):
    trained = train(*planted(300), SHORT.model_copy(update={"form": form, "loss": loss}))
    unseen, labels, _ = planted(100, seed=9)
    residual = np.mean((predict(trained.model, unseen) - labels) ** 2, axis=0) / labels.var(axis=0)
    assert residual.max() < 0.3  # R2 above 0.7 for every trait
    assert trained.metadata["validation_loss"] < (0.3 if loss == "mse" else 0.55) * trained.metadata["baseline_loss"]
    assert trained.metadata["warnings"] == []
    assert trained.model.form == form


def test_a_model_that_says_the_same_of_everybody_raises_the_alarm(caplog):
    clips, labels, subjects = planted(20)
    alike = [ClipTokens(clip.video_id, *(getattr(clips[0], name) for name in FIELDS)) for clip in clips]
    facts = train(alike, labels, subjects, TrainSettings(kind="specified", epochs=2)).metadata
    assert max(facts["sd_ratio"].values()) < 1e-3
    assert facts["warnings"] == [record.getMessage() for record in caplog.records]
    assert ", ".join(TRAITS) in facts["warnings"][0]


STOPPED = TrainSettings(kind="specified", epochs=40, patience=3)


@pytest.fixture(scope="module")
def stopped():
    """A training that early stopping ended: the data, the outcome, and what `on_epoch` saw."""
    data, seen = planted(60, skill=0.5), []
    return data, train(*data, STOPPED, on_epoch=seen.append), seen


def test_the_same_seed_gives_the_same_model(stopped):
    data, first, _ = stopped
    second = train(*data, STOPPED)
    assert first.history == second.history
    assert np.array_equal(predict(first.model, data[0]), predict(second.model, data[0]))


def test_other_threads_that_draw_random_numbers_do_not_change_the_model():
    """Those of Dask's workers do, twice a second."""
    data, ended = planted(20), threading.Event()

    def trained() -> np.ndarray:
        return predict(train(*data, SPECIFIED.model_copy(update={"epochs": 1})).model, data[0])

    def draw() -> None:
        while not ended.is_set():
            random.random()

    quiet = trained()
    thread = threading.Thread(target=draw)
    thread.start()
    try:
        disturbed = trained()
    finally:
        ended.set()
        thread.join()
    assert np.array_equal(quiet, disturbed)


def test_the_kept_model_is_that_of_the_best_epoch_and_metadata_says_so(stopped):
    (clips, labels, subjects), trained, seen = stopped
    losses, facts = trained.history["validation_loss"], trained.metadata
    assert facts["best_epoch"] == 1 + int(np.argmin(losses))
    assert facts["epochs_run"] == len(losses) == len(seen) < 40
    assert [report.epoch for report in seen] == list(range(1, len(losses) + 1))
    assert [report.validation_loss for report in seen] == pytest.approx(losses)
    assert facts["validation_loss"] == pytest.approx(min(losses), rel=1e-4)

    train_rows, validation_rows = split_by_subject(subjects, 0.2, 0)
    baseline = np.mean((labels[validation_rows] - labels[train_rows].mean(axis=0)) ** 2)
    assert facts["baseline_loss"] == pytest.approx(baseline, rel=1e-5)
    scores = predict(trained.model, [clips[row] for row in validation_rows])
    ratio = scores.std(axis=0) / labels[validation_rows].std(axis=0)
    assert list(facts["sd_ratio"].values()) == pytest.approx(ratio, rel=1e-4)
    assert facts["train_clips"] + facts["validation_clips"] == 60
    assert facts["train_subjects"] + facts["validation_subjects"] == 30
    assert json.loads(json.dumps(facts)) == facts


def test_inputs_are_standardised_with_the_statistics_of_the_training_clips_alone(stopped):
    (clips, _, subjects), trained, _ = stopped
    train_rows, _ = split_by_subject(subjects, 0.2, 0)
    rows = np.concatenate([clips[row].static for row in train_rows]).astype(np.float64)
    layer = trained.model.cross_attention.static_standardisation
    assert layer.mean == pytest.approx(rows.mean(axis=0), rel=1e-5)
    assert layer.std == pytest.approx(rows.std(axis=0), rel=1e-5)


def test_a_trained_model_survives_saving_exactly(stopped, tmp_path):
    (clips, _, _), trained, _ = stopped
    trained.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(predict(loaded, clips), predict(trained.model, clips))


def test_one_subject_trains_without_validation_and_says_so():
    clips, labels, _ = planted(6)
    trained = train(clips, labels, ["one"] * 6, TrainSettings(kind="specified", epochs=2))
    assert "same subject" in trained.metadata["warnings"][0]
    assert trained.metadata["validation_clips"] == 0
    assert trained.metadata["validation_loss"] is None
    assert trained.metadata["baseline_loss"] is None
    assert trained.metadata["best_epoch"] == 2
    assert list(trained.history) == ["loss"]


def test_two_clips_of_two_people_are_enough_to_run():
    clips, labels, _ = planted(2)
    trained = train(clips, labels, ["one", "two"], TrainSettings(kind="specified", epochs=2))
    assert trained.metadata["train_clips"] == trained.metadata["validation_clips"] == 1
    assert np.isfinite(predict(trained.model, clips)).all()


def test_one_clip_is_too_few():
    clips, labels, subjects = planted(1)
    with pytest.raises(TrainingError, match=r"\b2 labelled clips.*\b1\b"):
        train(clips, labels, subjects, SHORT)


def test_labels_that_do_not_fit_the_clips_are_refused():
    clips, labels, subjects = planted(4)
    with pytest.raises(ValueError, match=r"labels .*\[4, 5\].*\(3, 5\)"):
        train(clips, labels[:3], subjects, SHORT)


class ReadOnce(ClipsInMemory):
    """Clips that can be read once, for the statistics, and then no more."""

    reads = 0

    def read(self, rows):
        self.reads += 1
        if self.reads > 1:
            raise OSError("disk gone")
        return super().read(rows)


def test_an_error_of_the_source_ends_the_training_as_it_is():
    clips, labels, subjects = planted(8)
    wide = [replace(clip, static=np.tile(clip.static, (1, 1000))) for clip in clips]  # more than fits
    settings = TrainSettings(kind="specified", epochs=2, validation_fraction=0, memory_mb=1)
    with pytest.raises(OSError, match=r"^disk gone$"):
        train(ReadOnce(wide), labels, subjects, settings)


def test_no_more_clips_are_read_ahead_than_the_buffer_a_group_and_some_batches_hold():
    clips, labels, _ = planted(300)
    model = CompletePersonalityModel(12, 8)
    settings = TrainSettings(kind="specified", batch_size=5)
    read = []

    class Watched(ClipsInMemory):
        def read(self, rows):
            read.extend(rows.tolist())
            return super().read(rows)

    source = Watched(clips, np.split(np.arange(300), 30))
    epochs = EpochBatches(LabelledSource(source, labels), model.input_signature(), settings, buffer_clips=40)
    used = 0
    for inputs, batch_labels in epochs.dataset():
        used += len(batch_labels)
        assert inputs["static"].shape[0] == len(batch_labels)
        time.sleep(0.002)  # let the reader run ahead as far as it may
        assert len(read) - used <= 40 + 10 + (BATCHES_AHEAD + 1) * 5
    assert used == 300
    assert sorted(read) == list(range(300))


def test_a_step_size_that_explodes_is_reported():
    with pytest.raises(TrainingError, match=r"learning_rate.*1e\+30"):
        train(*planted(20), TrainSettings(kind="specified", epochs=20, learning_rate=1e30))


def test_settings_refuse_what_makes_no_sense():
    for wrong in ({"epochs": 0}, {"validation_fraction": 1.0}, {"loss": "ccc?"}, {"speed": 3}):
        with pytest.raises(ValidationError):
            TrainSettings(**wrong)


@pytest.fixture(scope="module")
def full_size():
    """Clips of all lengths with ResNet-50's and I3D's dimensions (the longest sums round most), and their model."""
    rng = np.random.default_rng(0)
    clips = []
    for index in range(40):
        static_count, dynamic_count = rng.integers(1, 17), rng.integers(1, 9)
        clips.append(
            ClipTokens(
                f"clip{index}.mp4",
                np.abs(rng.normal(size=(static_count, 2048))).astype(np.float32),
                np.linspace(0, 15, static_count, dtype=np.float32),
                np.abs(rng.normal(size=(dynamic_count, 1024))).astype(np.float32),
                np.linspace(0, 15, dynamic_count, dtype=np.float32),
            )
        )
    labels = np.clip(rng.normal(0.55, 0.15, size=(40, 5)), 0, 1)
    model = train(clips, labels, [clip.video_id for clip in clips], TrainSettings(kind="specified", epochs=4)).model
    return model, clips, np.concatenate([predict(model, [clip]) for clip in clips])


@pytest.mark.parametrize("batch_size", [3, 64])
def test_neighbours_and_padding_never_change_a_score(full_size, batch_size):
    model, clips, alone = full_size
    assert alone.std() > 0.05
    assert predict(model, iter(clips), batch_size) == pytest.approx(alone, rel=0, abs=1e-6)
    assert predict(model, clips[::-1], batch_size)[::-1] == pytest.approx(alone, rel=0, abs=1e-6)
    batch = pad_batch(clips)
    wide = {name: np.pad(each, [(0, 0), (0, 20), *[(0, 0)] * (each.ndim - 2)]) for name, each in batch.items()}
    assert model(wide).numpy() == pytest.approx(alone, rel=0, abs=1e-6)


@pytest.mark.parametrize("form", ["sequence", "vector"])
def test_scores_are_those_of_the_models_own_call_whatever_its_weights(form):
    rng = np.random.default_rng(0)
    model = CompletePersonalityModel(12, 8, fusion_dim=16, form=form)
    model.set_weights([rng.uniform(0.1, 0.6, weight.shape) for weight in model.get_weights()])
    model.set_statistics(rng.normal(size=12), rng.uniform(0.5, 2, 12), rng.normal(size=8), rng.uniform(0.5, 2, 8))
    clips, _, _ = planted(30)
    clips += [replace(clips[0], dynamic=clip.dynamic[:1], dynamic_time_s=clip.dynamic_time_s[:1]) for clip in clips]
    clips.append(  # on its own, as a batch is full of its tokens
        replace(
            clips[0], static=np.tile(clips[0].static, (3000, 1)), static_time_s=np.tile(clips[0].static_time_s, 3000)
        )
    )
    called = np.concatenate([model(pad_batch([clip])).numpy() for clip in clips])
    assert called.std() > 0.05
    assert predict(model, clips) == pytest.approx(called, rel=1e-5)


def test_no_clips_give_no_scores(full_size):
    assert predict(full_size[0], []).shape == (0, 5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_a_split_parts_people_and_loses_no_clip(seed, fraction):
    subjects = [f"p{person}" for person in np.random.default_rng(seed).integers(0, 12, size=50)]
    train_rows, validation_rows = split_by_subject(subjects, fraction, seed)
    assert sorted([*train_rows, *validation_rows]) == list(range(50))
    assert len(train_rows) > 0
    assert len(validation_rows) > 0
    assert {subjects[row] for row in train_rows}.isdisjoint({subjects[row] for row in validation_rows})


def test_a_split_of_many_people_comes_near_its_share():
    subjects = [f"p{person}" for person in range(1000)]
    train_rows, validation_rows = split_by_subject(subjects, 0.2, 0)
    assert (len(train_rows), len(validation_rows)) == (800, 200)
    assert not np.array_equal(validation_rows, split_by_subject(subjects, 0.2, 1)[1])
    assert len(split_by_subject(subjects, 0.0, 0)[1]) == 0


def test_statistics_of_blocks_are_those_of_the_whole():
    rows = (1e4 + np.random.default_rng(0).normal(size=(100, 6))).astype(np.float32)
    rows[:, 2] = 7.25
    moments = Moments()
    for block in (rows[:1], rows[1:40], rows[40:]):
        moments.add(block)
    mean, std = moments.mean_and_std()
    assert mean == pytest.approx(rows.astype(np.float64).mean(axis=0), rel=1e-6)
    expected = rows.astype(np.float64).std(axis=0)
    expected[2] = 1  # a feature that never changes is left alone
    assert std == pytest.approx(expected, rel=1e-5)
