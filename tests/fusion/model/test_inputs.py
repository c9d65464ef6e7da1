"""Inputs that do not fit a model give one clear error, whichever way the model is called."""

import re
from dataclasses import replace

import numpy as np
import pytest

from fusion import CompletePersonalityModel, CrossAttention
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
}
WAYS = {
    "call": lambda model, inputs: model(inputs),
    "fit": lambda model, inputs: model.fit(inputs, LABELS, verbose=0),
    "evaluate": lambda model, inputs: model.evaluate(inputs, LABELS, verbose=0),
    "predict": lambda model, inputs: model.predict(inputs, verbose=0),
}


@pytest.fixture(scope="module", params=["sequence", "vector", "bilinear"])
def model(request):
    if request.param == "bilinear":
        made = BilinearPersonalityModel(STATIC_DIM, DYNAMIC_DIM, 2, 2)
    else:
        made = CompletePersonalityModel(STATIC_DIM, DYNAMIC_DIM, fusion_dim=8, form=request.param)
    made.compile("adam", "mse")
    return made


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("misfit", MISFITS)
def test_inputs_that_do_not_fit_are_refused_in_one_line_that_names_them(model, misfit, way):
    inputs, message = MISFITS[misfit]
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        WAYS[way](model, inputs)


@pytest.mark.parametrize("way", WAYS)
def test_inputs_that_fit_are_taken(model, way):
    signature = model.input_signature()
    for inputs in ({name: tokens()[name] for name in signature}, (zeros(4, 20), zeros(4, 12))):
        WAYS[way](model, inputs)


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
