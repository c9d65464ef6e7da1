"""Inputs that do not fit a model give one clear error, whichever way the model is called."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from fusion import CompletePersonalityModel, CrossAttention, get_attention_weights
from fusion.clips.tokens import ClipTokens, pad_batch
from fusion.errors import InputError
from fusion.model.bilinear import BilinearPersonalityModel
from fusion.model.scoring import predict

STATIC_DIM, DYNAMIC_DIM = 20, 12
LABELS = np.full((4, 5), 0.5, np.float32)


def clip_of(static_dim=STATIC_DIM, dynamic_dim=DYNAMIC_DIM):
    rng = np.random.default_rng(0)
    times = np.arange(3, dtype=np.float32)
    static, dynamic = (rng.normal(size=(3, dim)).astype(np.float32) for dim in (static_dim, dynamic_dim))
    return ClipTokens("a.mp4", static, times, dynamic, times)


def tokens(**changes):
    return {**pad_batch([clip_of()] * 4), **changes}


def zeros(*shape):
    return np.zeros(shape, np.float32)


def with_nan(numbers, place, value=np.nan):
    numbers[place] = value
    return numbers


MISFITS = {
    "features of another network": (
        (zeros(4, 5), zeros(4, 12)),
        "static must be [B, 20] or [B, T, 20], got [4, 5]",
    ),
    "swapped": (
        (zeros(4, 12), zeros(4, 20)),
        "static must be [B, 20] or [B, T, 20], got [4, 12]; static and dynamic seem to be swapped",
    ),
    "motion of another network": (
        tokens(dynamic=zeros(4, 3, 7)),
        "dynamic must be [B, 12] or [B, T, 12], got [4, 3, 7]",
    ),
    "other number of clips": (
        (zeros(4, 20), zeros(3, 12)),
        "dynamic must have as many clips as static, 4, got 3",
    ),
    "one clip without a batch": ((zeros(20), zeros(12)), "static must be [B, 20] or [B, T, 20], got [20]"),
    "no token": (tokens(static=zeros(4, 0, 20)), "static must be [B, 20] or [B, T, 20], got [4, 0, 20]"),
    "short mask": (
        tokens(static_mask=np.ones((4, 2), bool)),
        "static_mask must be [4, 3], like the tokens of static, got [4, 2]",
    ),
    "mask of fewer clips": (
        tokens(dynamic_mask=np.ones((3, 3), bool)),
        "dynamic_mask must be [4, 3], like the tokens of dynamic, got [3, 3]",
    ),
    "times without clips": (
        tokens(dynamic_time_s=zeros(3)),
        "dynamic_time_s must be [4, 3], like the tokens of dynamic, got [3]",
    ),
    "nested lists": (
        (zeros(4, 20).tolist(), zeros(4, 12)),
        "static must be an array or a tensor, got list: use numpy.asarray",
    ),
    "lists of different lengths": (
        (zeros(4, 20), [[0.0] * 12, [0.0] * 11]),
        "dynamic must be an array or a tensor, got list: use numpy.asarray",
    ),
    "a list of the clips' tokens": (
        ([zeros(3, 20), zeros(2, 20)], [zeros(3, 12)] * 2),
        "static must be an array or a tensor, got list: use numpy.asarray",
    ),
    "words": (("faces.npy", "motion.npy"), "static must be an array or a tensor, got str: use numpy.asarray"),
    "array of words": (
        (np.full((4, 20), "0.5"), zeros(4, 12)),
        "static must be real numbers, such as float32, got <U3",
    ),
    "tensor of words": (
        (tf.fill((4, 20), "0.5"), zeros(4, 12)),
        "static must be real numbers, such as float32, got string",
    ),
    "array of objects": (
        (zeros(4, 20), zeros(4, 12).astype(object)),
        "dynamic must be real numbers, such as float32, got object",
    ),
    "complex numbers": (
        (zeros(4, 20).astype(complex), zeros(4, 12)),
        "static must be real numbers, such as float32, got complex128",
    ),
    "truth values": (
        (zeros(4, 20).astype(bool), zeros(4, 12)),
        "static must be real numbers, such as float32, got bool",
    ),
    "times as dates": (
        tokens(static_time_s=np.zeros((4, 3), "datetime64[s]")),
        "static_time_s must be real numbers, such as float32, got datetime64[s]",
    ),
    "mask of numbers": (
        tokens(static_mask=np.ones((4, 3), np.float32)),
        "static_mask must be bool, got float32",
    ),
    "NaN in a vector": (
        (with_nan(zeros(4, 20), (2, 5)), zeros(4, 12)),
        "static must be finite, and is not in clip 2",
    ),
    "NaN in a tensor": (
        (zeros(4, 20), tf.constant(with_nan(zeros(4, 12), (3, 0)))),
        "dynamic must be finite, and is not in clip 3",
    ),
    "infinity in a token": (
        tokens(dynamic=with_nan(zeros(4, 3, 12), (1, 2, 0), np.inf)),
        "dynamic must be finite, and is not in clip 1, token 2",
    ),
    "NaN in a time": (
        tokens(static_time_s=with_nan(zeros(4, 3), (3, 1))),
        "static_time_s must be finite, and is not in clip 3, token 1",
    ),
    "clip of padding alone": (
        tokens(dynamic_mask=np.array([[True] * 3, [True] * 3, [False] * 3, [True] * 3])),
        "dynamic_mask must mark a real token in each clip, and marks none in clip 2",
    ),
    "no clip": ((zeros(0, 20), zeros(0, 12)), "static must be [B, 20] or [B, T, 20], got [0, 20]"),
    "an axis too many": ((zeros(4, 1, 3, 20), zeros(4, 12)), "static must be [B, 20] or [B, T, 20], got [4, 1, 3, 20]"),
    "one array": (zeros(4, 20), "inputs must be the pair (static, dynamic) or a dict of arrays, got ndarray"),
    "a word": ("clips", "inputs must be the pair (static, dynamic) or a dict of arrays, got str"),
    "half a pair": (
        (None, zeros(4, 12)),
        "inputs must have the names static and dynamic, and may have dynamic_mask, dynamic_time_s, static_mask, "
        "static_time_s; got dynamic",
    ),
}
WAYS = {
    "call": lambda model, inputs: model(inputs),
    "fit": lambda model, inputs: model.fit(inputs, LABELS, verbose=0),
    "evaluate": lambda model, inputs: model.evaluate(inputs, LABELS, verbose=0),
    "predict": lambda model, inputs: model.predict(inputs, verbose=0),
    "train_on_batch": lambda model, inputs: model.train_on_batch(inputs, LABELS),
    "test_on_batch": lambda model, inputs: model.test_on_batch(inputs, LABELS),
    "predict_on_batch": lambda model, inputs: model.predict_on_batch(inputs),
    "attention": get_attention_weights,
}


@pytest.fixture(scope="module", params=["sequence", "vector", "bilinear"])
def model(request):
    if request.param == "bilinear":
        made = BilinearPersonalityModel(STATIC_DIM, DYNAMIC_DIM, 2, 2)
    else:
        made = CompletePersonalityModel(STATIC_DIM, DYNAMIC_DIM, fusion_dim=8, form=request.param)
    made.compile("adam", "mse")
    return made


@pytest.mark.parametrize("misfit", MISFITS)
def test_inputs_that_do_not_fit_are_refused_in_one_line_that_names_them(model, misfit):
    inputs, message = MISFITS[misfit]
    for way in WAYS.values():
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            way(model, inputs)


@pytest.mark.parametrize("way", sorted(WAYS.keys() - {"attention"}))
def test_inputs_that_fit_are_taken(model, way):
    signature = model.input_signature()
    for inputs in ({name: tokens()[name] for name in signature}, (zeros(4, 20), zeros(4, 12))):
        WAYS[way](model, inputs)


@pytest.mark.parametrize("way", ["call", "predict"])
def test_padding_other_numbers_and_vectors_with_sequences_are_taken(model, way):
    padding = np.array([[False, False, True]] * 4)
    for inputs in (
        (zeros(4, 3, 20), zeros(4, 12)),
        (zeros(4, 20).astype(np.float64), zeros(4, 2, 12).astype(np.int64)),
        (tf.zeros((4, 20), tf.float16), tf.zeros((4, 12))),
        tokens(static_time_s=np.ones((4, 3), np.int64), dynamic_time_s=np.ones((4, 3))),
        tokens(static=np.where(padding[..., None], np.float32(np.nan), zeros(4, 3, 20)), static_mask=~padding),
    ):
        assert np.isfinite(WAYS[way](model, inputs)).all()


@pytest.mark.parametrize(
    ("inputs", "given"),
    [
        (zeros(4, 20), "got ndarray"),
        ((zeros(4, 20),) * 3, "got 3 inputs"),
        ({"static": zeros(4, 20)}, "got static"),
        (tokens(static_times=zeros(4, 3)), "static_times"),
    ],
)
def test_other_than_a_pair_or_the_known_names_is_refused(model, inputs, given):
    with pytest.raises(InputError, match=given) as refused:
        model(inputs)
    assert "\n" not in str(refused.value)


def test_the_attention_layer_alone_checks_its_inputs_too():
    layer = CrossAttention(STATIC_DIM, DYNAMIC_DIM, 8, 2)
    with pytest.raises(InputError, match=r"^dynamic must be .*12\], got \[4, 20\]$"):
        layer(zeros(4, 20), zeros(4, 20))
    with pytest.raises(InputError, match=r"^static_mask must be \[4, 1\], like .* got \[4, 2\]$"):
        layer(zeros(4, 20), zeros(4, 12), np.ones((4, 2), bool))


@pytest.mark.parametrize(("kind", "dims"), [("static", (5, 12)), ("dynamic", (20, 7)), ("static", (12, 20))])
def test_clips_that_do_not_fit_are_refused_in_scoring_by_name(model, kind, dims):
    misfit = replace(clip_of(*dims), video_id="b.mp4")
    expected, given = (STATIC_DIM, dims[0]) if kind == "static" else (DYNAMIC_DIM, dims[1])
    with pytest.raises(InputError, match=f"^b.mp4: {kind} tokens must have {expected} numbers, got {given}$"):
        predict(model, [clip_of(), misfit])


def test_other_things_than_clips_are_refused_in_scoring(model):
    with pytest.raises(InputError, match=r"^clips must be ClipTokens, got tuple$"):
        predict(model, [clip_of(), (zeros(3, 20), zeros(3, 12))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"static": zeros(3, 20).tolist()}, "static tokens must be a float32 array, got list"),
        ({"dynamic": np.full((3, 12), "0.5")}, "dynamic tokens must be a float32 array, got <U3"),
        ({"static_time_s": [0, 1, 2]}, "static times must be a float32 array, got list"),
        (
            {"dynamic_time_s": np.zeros(3, "timedelta64[s]")},
            "dynamic times must be a float32 array, got timedelta64[s]",
        ),
        ({"dynamic": zeros(0, 12)}, "dynamic tokens must be [T >= 1, D >= 1], got (0, 12)"),
        ({"static": with_nan(zeros(3, 20), (1, 1))}, "static tokens or times hold a number that is not finite"),
    ],
)
def test_a_clip_of_other_things_than_numbers_is_refused(change, message):
    with pytest.raises(InputError, match=f"^{re.escape(f'a.mp4: {message}')}$"):
        replace(clip_of(), **change)
