"""Relevance against finite differences, and time lines of planted weights."""

import dataclasses

import keras
import numpy as np
import pytest

from fusion import CompletePersonalityModel, get_attention_weights
from fusion.model.relevance import attention_relevance, face_gradient
from fusion.pictures.heads import head_scores, plot_head_scores, plot_token_relations
from fusion.pictures.timeline import TimeLine, animate_time_line, plot_time_line
from fusion.traits import TRAITS

TRAIT = TRAITS.index("extraversion")


def model_and_batch():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = CompletePersonalityModel(12, 8, fusion_dim=16, num_heads=2)
    return model, {
        "static": rng.normal(size=(1, 5, 12)).astype(np.float32),
        "dynamic": rng.normal(size=(1, 4, 8)).astype(np.float32),
        "static_mask": np.array([[True, True, True, True, False]]),
        "dynamic_mask": np.array([[True, True, True, False]]),
        "static_time_s": np.arange(5, dtype=np.float32)[None],
        "dynamic_time_s": np.arange(4, dtype=np.float32)[None],
    }


def score(model, batch):
    return float(model(batch, training=False)[0, TRAIT])


def test_the_gradient_of_faces_is_what_small_changes_do_to_the_score():
    model, batch = model_and_batch()
    gradient = face_gradient(model, batch, "extraversion")
    assert gradient.shape == (1, 5, 12)
    assert not gradient[0, 4].any()  # padding
    for token, number in ((0, 3), (2, 7)):
        ends = []
        for step in (1e-2, -1e-2):
            static = batch["static"].copy()
            static[0, token, number] += step
            ends.append(score(model, {**batch, "static": static}))
        assert gradient[0, token, number] == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=0.02, abs=1e-4)


def test_relevance_is_what_more_attention_to_a_token_does_to_the_score():
    model, batch = model_and_batch()
    relevance = attention_relevance(model, batch, "extraversion")
    assert relevance.shape == (1, 2, 5, 4)
    assert relevance.sum(axis=-1) == pytest.approx(0, abs=1e-6)
    # With the same key for all, a bias on the query side adds the same to a token's logits for all faces. So shift one
    # token's logits in earnest: key + c * q / |q|^2 adds c to the logit of the one face q asks from.
    model.form, one_face = "sequence", {**batch, "static_mask": np.array([[True, False, False, False, False]])}
    relevance = attention_relevance(model, one_face, "extraversion")[0].sum(axis=(0, 1))
    ends = [_score_with_logits(model, one_face, token=1, shift=shift) for shift in (1e-2, -1e-2)]
    assert relevance[1] == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=0.02, abs=1e-5)
    assert abs(relevance[1]) > 1e-4


def _score_with_logits(model, batch, token, shift):
    """The score by NumPy alone, with something added to the first face's logits of one motion token, in all heads."""
    weight = {variable.path.removeprefix(f"{model.name}/"): variable.numpy() for variable in model.weights}

    def of(end):
        (found,) = [value for path, value in weight.items() if path.endswith(end)]
        return found

    weights = get_attention_weights(model, batch)[0, :, 0]
    weights = weights * np.exp(shift * (np.arange(4) == token))
    weights /= weights.sum(axis=-1, keepdims=True)
    periods = np.geomspace(1, 1000, 8)

    def projected(kind):
        angle = batch[f"{kind}_time_s"][0][:, None] * 2 * np.pi / periods
        tokens = batch[kind][0] @ of(f"{kind}_projection/kernel") + of(f"{kind}_projection/bias")
        return tokens + np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    values = np.einsum("sd,dhk->shk", projected("dynamic"), of("value/kernel")) + of("value/bias")
    answer = np.einsum("hs,shk,hkd->d", weights, values, of("attention_output/kernel")) + of("attention_output/bias")
    fused = projected("static")[0] + answer
    fused = (fused - fused.mean()) / np.sqrt(fused.var() + 1e-3)  # fresh norms: scale 1, shift 0
    pooled = fused / np.sqrt(1 + 1e-3)
    hidden = np.maximum(pooled @ of("hidden/kernel") + of("hidden/bias"), 0)
    return float((hidden @ of("scores/kernel") + of("scores/bias"))[TRAIT])


def test_its_own_weights_give_what_attention_gives():
    model, batch = model_and_batch()
    layer = model.cross_attention
    query = layer.tokens("static", batch["static"], batch["static_mask"], batch["static_time_s"])
    key = layer.tokens("dynamic", batch["dynamic"], batch["dynamic_mask"], batch["dynamic_time_s"])
    fused, weights = layer(**batch, return_attention=True)
    assert np.asarray(layer.fused_by(query, key, weights)) == pytest.approx(np.asarray(fused), abs=1e-5)
    assert np.asarray(layer.fused_by(query, key, weights[..., ::-1])) != pytest.approx(np.asarray(fused), abs=1e-3)


def test_the_hand_made_score_is_the_model_s():
    model, batch = model_and_batch()
    one_face = {**batch, "static_mask": np.array([[True, False, False, False, False]])}
    assert _score_with_logits(model, one_face, token=0, shift=0.0) == pytest.approx(score(model, one_face), abs=1e-4)


def test_an_unknown_trait_is_refused():
    with pytest.raises(ValueError, match=r"openness.*charm"):
        face_gradient(*model_and_batch(), "charm")


def planted_line(moment=2, tokens=5):
    weights = np.full((2, 3, tokens), 0.1 / (tokens - 1))
    weights[..., moment] = 0.9
    relevance = np.zeros_like(weights)
    relevance[..., moment], relevance[..., 0] = 0.02, -0.02
    start_s = 2.56 * np.arange(tokens)
    return TimeLine(weights, relevance, start_s, start_s + 2.56, "openness")


def drawn_frames(count):
    return [np.full((12, 16, 3), 20 * number, np.uint8) for number in range(count)]


def test_the_time_line_is_highest_at_the_planted_moment():
    line = planted_line(moment=2)
    assert line.by_moment().sum() == pytest.approx(1)
    times = np.linspace(0.1, 12.7, 60)
    strong = times[line.on_times(times) > 0.5]
    assert (strong > 2 * 2.56).all()
    assert (strong < 3 * 2.56).all()
    assert len(strong) > 5
    figure = plot_time_line(line, drawn_frames(6), np.linspace(1, 12, 6), heading="planted")
    attention, speech = figure.axes[-2:]
    assert np.argmax([bar.get_height() for bar in attention.patches]) == 2
    assert [np.sign(round(bar.get_height(), 9)) for bar in speech.patches] == [-1, 0, 1, 0, 0]
    borders = [axes.spines["top"].get_linewidth() for axes in figure.axes[:6]]
    assert np.argmax(borders) == 2  # the frame at 5.4 s


def test_what_is_but_rounding_is_told_to_say_nothing():
    line = planted_line()
    silent = dataclasses.replace(line, relevance=1e-9 * line.relevance)
    assert not silent.spoken().any()
    assert line.spoken().any()
    speech = plot_time_line(silent, drawn_frames(2), np.array([1.0, 6.0]), heading="silent").axes[-1]
    assert [text.get_text() for text in speech.texts] == ["no moment raises or lowers it"]


def test_times_outside_all_windows_get_no_attention():
    assert planted_line().on_times(np.array([-1.0, 99.0])).tolist() == [0, 0]


def test_the_marker_of_the_moving_line_runs_with_the_frames():
    times = np.array([1.0, 6.0, 11.0])
    moving = animate_time_line(planted_line(), drawn_frames(3), times, heading="planted")
    for number, time_s in enumerate(times):
        markers = moving._func(number)
        assert [marker.get_xdata()[0] for marker in markers] == [time_s, time_s]
    moving._draw_was_started = True  # nobody saves it here


def test_a_head_that_looks_at_one_token_is_told_from_one_that_looks_at_all():
    times = np.array([0.0, 2.0, 4.0])
    weights = np.stack([np.eye(3), np.full((3, 3), 1 / 3)])
    scores = head_scores(weights, times, times)
    assert scores["spread"] == pytest.approx([0, 1])
    assert scores["distance_s"] == pytest.approx([0, (0 + 2 + 4 + 2 + 0 + 2 + 4 + 2 + 0) / 9])
    figure = plot_head_scores(weights, times, times, heading="two heads")
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([0, 1])


def test_relations_tie_each_face_to_what_it_looks_at():
    times = np.array([0.0, 2.0, 4.0])
    figure = plot_token_relations(np.eye(3)[None, ::-1], times, times, heading="crossed")
    ties = sorted(tuple(line.get_xdata()) for line in figure.axes[0].lines)
    assert ties == [(0.0, 4.0), (2.0, 2.0), (4.0, 0.0)]
