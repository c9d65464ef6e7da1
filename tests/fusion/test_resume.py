"""A training that is killed goes on as if nothing had happened; a training on two devices is that on one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from planted import planted_clips

from fusion.errors import TrainingError
from fusion.scoring import predict
from fusion.settings import TrainSettings
from fusion.training import CHECKPOINT, train

SETTINGS = TrainSettings(epochs=4, batch_size=8, checkpoint_s=0, loss="nll", schedule="plateau", plateau_epochs=1)

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
from fusion.scoring import predict
from fusion.sources import ClipsInMemory
from fusion.training import TrainSettings, train

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
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests' / 'support'}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    values = settings.model_dump_json(exclude={"devices"})
    command = [sys.executable, "-c", CHILD, values, str(devices), str(pause_s), str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen) -> tuple[dict, np.ndarray]:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    history, scores = json.loads(said.splitlines()[-1])
    return history, np.array(scores)


def test_a_killed_training_goes_on_and_ends_with_the_very_numbers_of_an_undisturbed_one(tmp_path):
    pause_s = 0.01
    undisturbed = child(SETTINGS, pause_s=pause_s)
    first = child(SETTINGS, pause_s=pause_s, folder=tmp_path)
    first.stdout.readline()  # an epoch is done
    before = (tmp_path / CHECKPOINT).stat().st_mtime_ns
    while (tmp_path / CHECKPOINT).stat().st_mtime_ns == before:
        time.sleep(0.01)  # and now some steps of the next
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    with np.load(tmp_path / CHECKPOINT) as file:
        facts = json.loads(file["facts"].tobytes())
    assert len(facts["history"]["loss"]) >= 1
    expected = outcome(undisturbed)
    second = child(SETTINGS, pause_s=pause_s, folder=tmp_path)
    history, scores = outcome(second)
    assert history == expected[0]
    assert np.array_equal(scores, expected[1])
    print(f"killed in epoch {len(facts['history']['loss']) + 1} after {facts['batches_done']} batches")


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


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(TrainingError, match="asks for 9 CPUs, there are 1"):
        train(*small(), TrainSettings(devices=9))


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    train(*small(), TrainSettings(epochs=1), folder=tmp_path)
    with pytest.raises(TrainingError, match="another training"):
        train(*small(), TrainSettings(epochs=1, seed=1), folder=tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"PK no more")
    with pytest.raises(TrainingError, match="delete it to start over"):
        train(*small(), TrainSettings(epochs=1), folder=tmp_path)


def test_logs_hold_every_measure_by_epoch(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = train(*small(), TrainSettings(epochs=3), folder=tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {"loss", "validation_loss", "learning_rate", "sd_ratio/openness"} <= set(events.Tags()["tensors"])
    logged = [
        float(np.frombuffer(e.tensor_proto.tensor_content or np.float32(e.tensor_proto.float_val[0]), np.float32))
        for e in events.Tensors("loss")
    ]
    assert logged == pytest.approx(trained.history["loss"])
    assert [event.step for event in events.Tensors("loss")] == [1, 2, 3]


@pytest.mark.parametrize("loss", ["ccc", "nll"])
def test_steps_in_bfloat16_learn_and_leave_a_float32_model(loss):
    data = planted_clips(200, seed=0, static_tokens=2, dynamic_tokens=1, dim=4)
    settings = TrainSettings(precision="bfloat16", epochs=25, batch_size=16, loss=loss)
    trained = train(data.clips, data.labels, data.subjects, settings)
    unseen = planted_clips(100, seed=1, static_tokens=2, dynamic_tokens=1, dim=4)
    scores = predict(trained.model, unseen.clips)
    assert trained.model.dtype_policy.name == "float32"
    assert scores.dtype == np.float32
    assert 1 - np.mean((scores - unseen.labels) ** 2) / unseen.labels.var() > 0.7
    if loss == "nll":
        residual = (scores - unseen.labels).std(axis=0)
        assert list(trained.metadata["noise_sd"].values()) == pytest.approx(residual, rel=2)
