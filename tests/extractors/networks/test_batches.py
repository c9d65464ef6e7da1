"""Batches for a network that runs out of memory, as TensorFlow says it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from extractors.errors import DeviceError
from extractors.networks.batches import describe_in_batches


def exhausted() -> None:
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


class SmallDevice:
    """Sums items, but runs out of memory if there are more than `room`."""

    def __init__(self, room: int, network=lambda batch: batch.sum(axis=1, keepdims=True), run_out=exhausted) -> None:
        self.room, self.network, self.run_out, self.asked = room, network, run_out, []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.asked.append(len(batch))
        if len(batch) > self.room:
            self.run_out()
        return self.network(batch)


def test_batch_is_halved_until_it_fits_and_every_item_is_described_once_in_its_place():
    items = np.arange(39, dtype=np.float32).reshape(13, 3)
    device = SmallDevice(room=3)
    features, size = describe_in_batches(device, items, 8, noun="window")
    np.testing.assert_array_equal(features, items.sum(axis=1, keepdims=True))
    assert size == 2
    assert device.asked == [8, 4, 2, 2, 2, 2, 2, 2, 1]


@pytest.mark.parametrize("cause", ["RESOURCE_EXHAUSTED: Allocating 9 bytes", "UNKNOWN: CUDNN_STATUS_ALLOC_FAILED"])
def test_a_batch_for_which_cudnn_has_no_memory_is_halved(cause):
    def no_algorithm() -> None:
        message = f"No algorithm worked!  Error messages:\n  Profiling failure on CUDNN engine 1: {cause}"
        raise tf.errors.NotFoundError(None, None, message)

    device = SmallDevice(room=2, run_out=no_algorithm)
    features, size = describe_in_batches(device, np.ones((4, 2), np.float32), 4, noun="window")
    assert (features.tolist(), size) == ([[2.0]] * 4, 2)


@pytest.mark.slow  # TensorFlow waits 10 s for somebody to let go of memory
def test_memory_that_really_runs_out_is_met_by_a_smaller_batch():
    device = SmallDevice(room=2, run_out=lambda: tf.zeros([2**45]))  # 140 TB
    features, size = describe_in_batches(device, np.ones((4, 2), np.float32), 4, noun="window")
    assert (features.tolist(), size) == ([[2.0]] * 4, 2)


def test_batch_that_fits_is_left_as_it_is():
    device = SmallDevice(room=8)
    _, size = describe_in_batches(device, np.ones((9, 2), np.float32), 8, noun="window")
    assert (size, device.asked) == (8, [8, 1])


def test_item_that_does_not_fit_alone_is_an_error_that_names_it():
    with pytest.raises(DeviceError, match="window"):
        describe_in_batches(SmallDevice(room=0), np.ones((4, 2), np.float32), 4, noun="window")


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.InvalidArgumentError(None, None, "wrong shape"),
        tf.errors.NotFoundError(None, None, "No algorithm worked!  CUDNN_STATUS_NOT_SUPPORTED"),
    ],
    ids=["invalid", "not found"],
)
def test_any_other_error_of_the_network_is_raised_as_it_is(error):
    def wrong(_: np.ndarray) -> np.ndarray:
        raise error

    with pytest.raises(type(error), match=error.message):
        describe_in_batches(wrong, np.ones((4, 2), np.float32), 4, noun="window")


@pytest.mark.parametrize("network", ["resnet_extractor", "i3d_extractor"])
def test_extractor_gives_the_same_bits_in_the_batches_that_fit_and_remembers_them(network, request, monkeypatch):
    rng = np.random.default_rng(0)
    if network == "resnet_extractor":
        items = rng.integers(0, 256, (5, 224, 224, 3), np.uint8)
    else:
        items = rng.uniform(-1, 1, (5, 9, 224, 224, 2)).astype(np.float32)
    extractor = request.getfixturevalue(network)
    monkeypatch.setattr(extractor, "batch_size", 5)
    expected = extractor.extract(items)
    device = SmallDevice(2, extractor._network.predict_on_batch)
    monkeypatch.setattr(extractor._network, "predict_on_batch", device)
    np.testing.assert_array_equal(extractor.extract(items), expected)
    assert extractor.batch_size == 2
    extractor.extract(items)
    assert max(device.asked[-3:]) == 2  # the memory of what fitted holds for the next batches
