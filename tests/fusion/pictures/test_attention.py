"""Attention weights and their picture."""

import keras
import numpy as np
import pytest

from fusion import CompletePersonalityModel, get_attention_weights, plot_attention_map


def model_and_inputs():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = CompletePersonalityModel(12, 8, fusion_dim=16, num_heads=2)
    static, dynamic = rng.normal(size=(3, 5, 12)).astype(np.float32), rng.normal(size=(3, 4, 8)).astype(np.float32)
    return model, static, dynamic


def softmax_of(model, static, dynamic):
    """The attention of scaled dot products, by hand."""
    weight = {variable.path: variable.numpy() for variable in model.weights}
    query, key = static @ weight["static_projection/kernel"], dynamic @ weight["dynamic_projection/kernel"]
    query = np.einsum("btd,dhk->bhtk", query, weight["attention/query/kernel"])
    key = np.einsum("bsd,dhk->bhsk", key, weight["attention/key/kernel"])
    power = np.exp(np.einsum("bhtk,bhsk->bhts", query, key) / np.sqrt(16))
    return power / power.sum(axis=-1, keepdims=True)


def test_weights_are_the_softmax_of_scaled_dot_products_for_model_and_layer_alike():
    model, static, dynamic = model_and_inputs()
    expected = softmax_of(model, static, dynamic)
    assert get_attention_weights(model, (static, dynamic)) == pytest.approx(expected, abs=1e-5)
    assert get_attention_weights(model, static, dynamic) == pytest.approx(expected, abs=1e-5)
    assert get_attention_weights(model.cross_attention, static, dynamic) == pytest.approx(expected, abs=1e-5)
    assert expected.std() > 0.05  # not all alike


def test_padding_draws_and_receives_no_attention():
    model, static, dynamic = model_and_inputs()
    static_mask, dynamic_mask = np.ones((3, 5), bool), np.ones((3, 4), bool)
    static_mask[1, 3:] = False
    dynamic_mask[1, 1:] = False
    weights = get_attention_weights(
        model, {"static": static, "dynamic": dynamic, "static_mask": static_mask, "dynamic_mask": dynamic_mask}
    )
    assert weights.shape == (3, 2, 5, 4)
    assert np.all(weights[1, :, 3:] == 0)
    assert np.all(weights[1, :, :3, 0] == 1)
    assert weights[0].sum(axis=-1) == pytest.approx(1, abs=1e-5)


def test_vectors_leave_attention_nothing_to_choose_and_no_warning(recwarn):
    model, static, dynamic = model_and_inputs()
    weights = get_attention_weights(model, (static[:, 0], dynamic[:, 0]))
    assert np.array_equal(weights, np.ones((3, 2, 1, 1)))
    assert [str(warning.message) for warning in recwarn if "softmax" in str(warning.message)] == []


def test_the_map_shows_each_head_and_their_mean(tmp_path):
    weights = np.random.default_rng(0).dirichlet(np.ones(6), size=(2, 4, 16)).astype(np.float32)
    figure = plot_attention_map(
        weights,
        clip=1,
        static_time_s=np.arange(16),
        dynamic_time_s=2.56 * np.arange(6),
        title="a clip",
        save_path=tmp_path / "map.png",
    )
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["head 1", "head 2", "head 3", "head 4", "mean of heads"]
    assert np.array_equal(panels[2].images[0].get_array(), weights[1, 2])
    assert np.asarray(panels[4].images[0].get_array()) == pytest.approx(weights[1].mean(axis=0))
    assert panels[0].get_xticklabels()[1].get_text() == "5.1"
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_the_specified_snippet_makes_the_folders_of_its_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, static, dynamic = model_and_inputs()
    weights = get_attention_weights(model.cross_attention, static, dynamic)
    plot_attention_map(weights, save_path="results/visualizations/attention_map.png")
    assert (tmp_path / "results/visualizations/attention_map.png").stat().st_size > 1000


def test_times_that_do_not_fit_the_tokens_are_refused():
    with pytest.raises(ValueError, match=r"\b6 tokens.*\b5\b"):
        plot_attention_map(np.full((4, 16, 6), 1 / 6), dynamic_time_s=np.arange(5))
