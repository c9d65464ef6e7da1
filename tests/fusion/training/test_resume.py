"""A training that is killed goes on as if nothing had happened; a training on two devices is that on one."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from planted import planted_clips

from fusion.errors import TrainingError
from fusion.model.scoring import predict
from fusion.settings import TrainSettings
from fusion.training.checkpoint import CHECKPOINT
from fusion.training.fit import HISTORY_TABLE
from fusion.training.train import train

SETTINGS = TrainSettings(kind="specified", epochs=4, batch_size=8, loss="nll", schedule="plateau", plateau_epochs=1)

# A process of its own, because only a process can be killed. Says each epoch's losses and, at the end, the scores.
CHILD = """
import json, sys, time
from pathlib import Path
import numpy as np
import tensorflow as tf
settings, devices, pause_s, folder = json.loads(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
if devices > 1:
    halves = [tf.config.LogicalDeviceConfiguration()] * devices
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
from planted import planted_clips
from fusion.model.scoring import predict
from fusion.clips.sources import ClipsInMemory
from fusion.settings import TrainSettings; from fusion.training.train import train

class Slow(ClipsInMemory):
    def groups(self):
        return [group[None] for group in super().groups()[0]]
    def read(self, rows):
        time.sleep(pause_s)
        return super().read(rows)

data = planted_clips(60, seed=0, static_tokens=4, dynamic_tokens=2, dim=4)
settings = TrainSettings(**settings, devices=devices)
if pause_s:  # more than fits, so that clips are read one by one
    data.clips[:] = [type(c)(c.video_id, c.static.repeat(1300, 1), c.static_time_s, c.dynamic, c.dynamic_time_s)
                     for c in data.clips]
    settings = settings.model_copy(update={"memory_mb": 1})
say = lambda report: print(json.dumps([report.loss, report.validation_loss]), flush=True)
folder = Path(folder) if folder else None
trained = train(Slow(data.clips), data.labels, data.subjects, settings, on_epoch=say, folder=folder)
print(json.dumps([trained.history, predict(trained.model, data.clips).tolist()]), flush=True)
"""


def child(
    settings: TrainSettings, *, devices: int = 1, pause_s: float = 0, folder: Path | str = ""
) -> subprocess.Popen:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests' / 'support'}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    values = settings.model_dump_json(exclude={"devices"})
    command = [sys.executable, "-c", CHILD, values, str(devices), str(pause_s), str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen) -> tuple[dict, np.ndarray]:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    history, scores = json.loads(said.splitlines()[-1])
    return history, np.array(scores)


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_very_numbers_of_an_undisturbed_one(tmp_path):
    pause_s = 0.01
    undisturbed = child(SETTINGS, pause_s=pause_s)
    first = child(SETTINGS, pause_s=pause_s, folder=tmp_path)
    first.stdout.readline()  # an epoch is done
    time.sleep(20 * pause_s)  # in the middle of the next
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    with np.load(tmp_path / CHECKPOINT) as file:
        facts = json.loads(file["facts"].tobytes())
    assert len(facts["history"]) >= 1
    expected = outcome(undisturbed)
    second = child(SETTINGS, pause_s=pause_s, folder=tmp_path)
    history, scores = outcome(second)
    assert history == expected[0]
    assert np.array_equal(scores, expected[1])
    print(f"killed in epoch {len(facts['history']) + 1}")


@pytest.mark.slow
def test_two_devices_learn_what_one_does():
    settings = SETTINGS.model_copy(update={"dropout_rate": 0.0, "epochs": 3, "batch_size": 7})
    alone, together = child(settings), child(settings, devices=2)
    (history, scores), (shared_history, shared_scores) = outcome(alone), outcome(together)
    for name, losses in history.items():
        assert shared_history[name] == pytest.approx(losses, abs=2e-4)
    assert shared_scores == pytest.approx(scores, abs=2e-3)
    assert scores.std() > 0.02


def small():
    data = planted_clips(12, seed=0, static_tokens=4, dynamic_tokens=2, dim=4)
    return data.clips, data.labels, data.subjects


class BrokenOffError(Exception):
    """What a test breaks a training off with."""


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "nll", "schedule": "plateau", "plateau_epochs": 1, "warmup_epochs": 2.5},
        pytest.param({"precision": "bfloat16", "patience": 1, "learning_rate": 0.1}, marks=pytest.mark.slow),
        pytest.param({"schedule": "constant", "loss": "ccc"}, marks=pytest.mark.slow),
    ],
)
def test_a_training_that_was_broken_off_ends_as_an_undisturbed_one(tmp_path, changes):
    settings = TrainSettings(kind="specified", epochs=5, batch_size=4, **changes)
    seen = []

    def stop(report):
        seen.append(report.epoch)
        if report.epoch == 2:
            raise BrokenOffError

    undisturbed = train(*small(), settings, folder=tmp_path / "undisturbed")
    with pytest.raises(BrokenOffError):
        train(*small(), settings, on_epoch=stop, folder=tmp_path)
    resumed = train(*small(), settings, on_epoch=lambda report: seen.append(report.epoch), folder=tmp_path)
    again = train(*small(), settings, on_epoch=lambda report: seen.append(report.epoch), folder=tmp_path)
    assert seen == list(range(1, undisturbed.metadata["epochs_run"] + 1))
    assert (tmp_path / HISTORY_TABLE).read_text() == (tmp_path / "undisturbed" / HISTORY_TABLE).read_text()
    assert again.metadata == undisturbed.metadata
    assert resumed.history == undisturbed.history
    assert resumed.metadata == undisturbed.metadata
    assert np.array_equal(predict(resumed.model, small()[0]), predict(undisturbed.model, small()[0]))


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(TrainingError, match=r"train\.devices.*\b9\b.*\b1\b"):
        train(*small(), TrainSettings(kind="specified", devices=9))


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A training and the folder with its checkpoint and logs."""
    folder = tmp_path_factory.mktemp("training")
    return train(*small(), TrainSettings(kind="specified", epochs=3), folder=folder), folder


def test_the_checkpoint_of_another_training_is_refused(logged, tmp_path):
    shutil.copy(logged[1] / CHECKPOINT, tmp_path)
    with pytest.raises(TrainingError, match=CHECKPOINT):
        train(*small(), TrainSettings(kind="specified", epochs=3, seed=1), folder=tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"PK no more")
    with pytest.raises(TrainingError, match=CHECKPOINT):
        train(*small(), TrainSettings(kind="specified", epochs=3), folder=tmp_path)


def test_logs_hold_every_measure_by_epoch(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained, folder = logged
    for kind, name, tags in (
        ("train", "loss", {"epoch_loss", "epoch_learning_rate"}),
        ("validation", "validation_loss", {"epoch_loss", "epoch_sd_ratio/openness"}),
    ):
        events = EventAccumulator(str(folder / kind))
        events.Reload()
        assert tags <= set(events.Tags()["tensors"])
        found = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_loss")]
        assert found == pytest.approx(trained.history[name])
    with (folder / HISTORY_TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in rows] == trained.history["validation_loss"]
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]


@pytest.mark.slow  # processors compute bfloat16 slowly, and training is the same in all precisions
def test_steps_in_bfloat16_learn_and_leave_a_float32_model():
    data, unseen = (planted_clips(200, seed=seed, static_tokens=2, dynamic_tokens=1, dim=4) for seed in (0, 1))
    settings = TrainSettings(kind="specified", precision="bfloat16", epochs=25, batch_size=16, loss="ccc")
    trained = train(data.clips, data.labels, data.subjects, settings)
    scores = predict(trained.model, unseen.clips)
    assert trained.model.dtype_policy.name == "float32"
    assert scores.dtype == np.float32
    assert 1 - np.mean((scores - unseen.labels) ** 2) / unseen.labels.var() > 0.7
    assert trained.metadata["noise_sd"] is None


def test_the_likelihood_finds_how_noisy_each_trait_is():
    data = planted_clips(1000, seed=0, static_tokens=2, dynamic_tokens=1, dim=4)
    noise_sd = np.array([0.05, 0.1, 0.2, 0.1, 0.3])
    noise = np.random.default_rng(0).normal(size=data.labels.shape) * noise_sd
    trained = train(
        data.clips, data.labels + noise, data.subjects, TrainSettings(kind="specified", epochs=12, loss="nll")
    )
    found = np.array(list(trained.metadata["noise_sd"].values()))
    assert found / np.hypot(noise_sd, 0.04) == pytest.approx(1, abs=0.25)  # dropout's noise is in it
    assert trained.metadata["validation_loss"] < trained.metadata["baseline_loss"]
