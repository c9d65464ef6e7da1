"""The specified model: its counts, its two forms, and what must never change a score."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from fusion import CompletePersonalityModel, CrossAttention, FeatureFusionModule, PersonalityPredictionHead
from fusion.model.layers import Standardisation, masked_mean, time_encoding


def small_model(form="sequence", seed=0):
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = CompletePersonalityModel(12, 8, fusion_dim=16, num_heads=2, hidden_dim=6, form=form)
    model.set_statistics(
        rng.normal(size=12), rng.uniform(0.5, 2, size=12), rng.normal(size=8), rng.uniform(0.5, 2, size=8)
    )
    # a fresh BatchNorm is the identity, and fresh biases are zero: neither would show a mistake
    for variable in model.weights:
        if not variable.name.startswith("kernel"):
            variable.assign(rng.uniform(0.5, 1.5, size=variable.shape))
    return model


def tokens(clip_count=3, static_count=5, dynamic_count=4, seed=1):
    rng = np.random.default_rng(seed)
    return {
        "static": rng.normal(size=(clip_count, static_count, 12)).astype(np.float32),
        "dynamic": rng.normal(size=(clip_count, dynamic_count, 8)).astype(np.float32),
        "static_mask": np.ones((clip_count, static_count), bool),
        "dynamic_mask": np.ones((clip_count, dynamic_count), bool),
        "static_time_s": np.tile(np.arange(static_count, dtype=np.float32), (clip_count, 1)),
        "dynamic_time_s": np.tile(2.56 * np.arange(dynamic_count, dtype=np.float32), (clip_count, 1)),
    }


@pytest.mark.parametrize(
    ("static_dim", "dynamic_dim", "parameters", "trainable"),
    [(512, 256, 371_717, 371_461), (2048, 1024, 666_629, 666_373)],
)
def test_the_model_has_exactly_the_specified_parameters(static_dim, dynamic_dim, parameters, trainable):
    model = CompletePersonalityModel(static_dim, dynamic_dim)
    model.set_statistics(np.ones(static_dim), np.ones(static_dim), np.ones(dynamic_dim), np.ones(dynamic_dim))
    model((np.zeros((2, static_dim), np.float32), np.zeros((2, dynamic_dim), np.float32)))
    assert model.count_params() == parameters
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == trainable


@pytest.mark.parametrize("form", ["sequence", "vector"])
@pytest.mark.parametrize("standardised", [False, True])
def test_the_summary_shows_the_shapes_and_weights_of_every_layer(form, standardised):
    model = CompletePersonalityModel(2048, 1024, form=form, standardised=standardised)
    lines = []
    model.summary(line_length=76, print_fn=lines.append)
    text = "\n".join(lines)
    assert "?" not in text
    assert "unbuilt" not in text
    rows = dict(re.findall(r"│ (\w+) .*?│ (\(.*?\)) +│", text))
    fused = "(None, None, 128)" if form == "sequence" else "(None, 128)"
    assert rows == {"cross_attention": fused, "fusion": "(None, 128)", "head": "(None, 5)"}
    counts = dict(re.findall(r"(\w+) params: ([\d,]+)", text))
    statistics = 2 * (2048 + 1024) * standardised
    assert counts["Total"] == f"{666_629 + statistics:,}"
    assert counts["Trainable"] == "666,373"
    assert model.count_params() == 666_629


def test_the_specified_snippets_run_as_they_stand():
    static_features = np.random.default_rng(0).normal(size=(4, 512)).astype(np.float32)
    dynamic_features = np.random.default_rng(1).normal(size=(4, 256)).astype(np.float32)
    model = CompletePersonalityModel(static_dim=512, dynamic_dim=256, fusion_dim=128, num_heads=4, dropout_rate=0.3)
    assert model((static_features, dynamic_features), training=True).shape == (4, 5)
    assert CrossAttention(512, 256, 128, 4)(static_features, dynamic_features).shape == (4, 128)
    fused = tf.random.normal((8, 128))
    pooled = FeatureFusionModule(fusion_dim=128)(fused, training=True)
    assert PersonalityPredictionHead()(pooled).shape == (8, 5)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=0.001),
        loss=keras.losses.MeanSquaredError(),
        metrics=["mae", "mse"],
    )
    model.fit((static_features, dynamic_features), np.zeros((4, 5), np.float32), verbose=0)
    assert model.predict((static_features, dynamic_features), verbose=0).shape == (4, 5)


def test_the_vector_form_computes_what_the_specification_says_step_by_step():
    model = small_model()
    rng = np.random.default_rng(2)
    static, dynamic = rng.normal(size=(3, 12)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)

    weight = {variable.path: variable.numpy().astype(np.float64) for variable in model.weights}
    attention = model.cross_attention
    query = (static - attention.static_standardisation.mean) / attention.static_standardisation.std
    query = query @ weight["static_projection/kernel"] + weight["static_projection/bias"]
    value = (dynamic - attention.dynamic_standardisation.mean) / attention.dynamic_standardisation.std
    value = value @ weight["dynamic_projection/kernel"] + weight["dynamic_projection/bias"]
    # one key has the weight 1, so the answer is the value, through the heads and out again
    heads = np.einsum("bd,dhk->bhk", value, weight["attention/value/kernel"]) + weight["attention/value/bias"]
    answer = np.einsum("bhk,hkd->bd", heads, weight["attention/attention_output/kernel"])
    fused = query + answer + weight["attention/attention_output/bias"]
    fused = (fused - fused.mean(axis=1, keepdims=True)) / np.sqrt(fused.var(axis=1, keepdims=True) + 1e-3)
    fused = fused * weight["norm/gamma"] + weight["norm/beta"]
    pooled = (fused - weight["batch_norm/moving_mean"]) / np.sqrt(weight["batch_norm/moving_variance"] + 1e-3)
    pooled = pooled * weight["batch_norm/gamma"] + weight["batch_norm/beta"]
    hidden = np.maximum(pooled @ weight["head/hidden/kernel"] + weight["head/hidden/bias"], 0)
    expected = hidden @ weight["head/scores/kernel"] + weight["head/scores/bias"]

    assert model((static, dynamic)).numpy() == pytest.approx(expected, abs=1e-4)


def test_a_sequence_of_one_token_gives_exactly_the_vector_result():
    model = small_model()
    inputs = tokens(static_count=1, dynamic_count=1)
    vector = model((inputs["static"][:, 0], inputs["dynamic"][:, 0])).numpy()
    assert np.array_equal(model((inputs["static"], inputs["dynamic"])).numpy(), vector)


def test_the_vector_form_of_a_token_clip_is_the_vector_result_of_its_mean_tokens():
    inputs = tokens()
    inputs["dynamic_mask"][:, 2:] = False
    means = inputs["static"].mean(axis=1), inputs["dynamic"][:, :2].mean(axis=1)
    expected = small_model()(means).numpy()
    assert small_model(form="vector")(inputs).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize("filler", [0.0, 1e6, np.nan])
def test_padding_changes_no_score_whatever_stands_in_it(kind, filler):
    model = small_model()
    inputs = tokens()
    padded = dict(inputs)
    padded[kind] = np.pad(inputs[kind], ((0, 0), (0, 3), (0, 0)), constant_values=filler)
    padded[f"{kind}_mask"] = np.pad(inputs[f"{kind}_mask"], ((0, 0), (0, 3)))
    padded[f"{kind}_time_s"] = np.pad(inputs[f"{kind}_time_s"], ((0, 0), (0, 3)), constant_values=99)
    assert model(padded).numpy() == pytest.approx(model(inputs).numpy(), abs=1e-6)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_the_order_in_which_tokens_are_listed_changes_no_score(kind):
    model = small_model()
    inputs = tokens()
    order = np.random.default_rng(3).permutation(inputs[kind].shape[1])
    shuffled = dict(inputs)
    for name in (kind, f"{kind}_mask", f"{kind}_time_s"):
        shuffled[name] = inputs[name][:, order]
    assert model(shuffled).numpy() == pytest.approx(model(inputs).numpy(), abs=1e-6)


def test_the_times_of_tokens_change_scores():
    model = small_model()
    inputs = tokens()
    moved = inputs | {"dynamic_time_s": inputs["dynamic_time_s"][:, ::-1].copy()}
    assert np.abs(model(moved).numpy() - model(inputs).numpy()).max() > 1e-3


def test_time_encoding_makes_nearness_in_time_a_dot_product():
    times = np.array([[0.0, 0.3, 10.0, 10.3, 500.0, 500.3, 520.0]], np.float32)
    code = time_encoding(times, 128).numpy()[0]
    alike = code @ code.T
    assert np.diag(alike) == pytest.approx(64, abs=1e-3)
    # the same distance looks the same wherever it is, and a longer one less alike
    assert alike[2, 3] == pytest.approx(alike[0, 1], abs=0.02)
    assert alike[4, 5] == pytest.approx(alike[0, 1], abs=0.02)
    assert alike[0, 1] > alike[0, 2] > alike[0, 4]


def gradients(model, inputs):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(inputs, training=True) ** 2)
    found = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    return {
        variable.path: float(np.abs(gradient).max())
        for variable, gradient in zip(model.trainable_variables, found, strict=True)
    }


def test_query_and_key_projections_learn_from_sequences_and_cannot_from_vectors():
    model = small_model()
    inputs = tokens()
    from_sequences = gradients(model, inputs)
    from_vectors = gradients(model, (inputs["static"][:, 0], inputs["dynamic"][:, 0]))
    for name in ("query", "key"):
        assert from_sequences[f"attention/{name}/kernel"] > 1e-4
        assert from_vectors[f"attention/{name}/kernel"] < 1e-9
    assert from_vectors["attention/value/kernel"] > 1e-4


def test_a_saved_model_loads_with_identical_scores_statistics_and_form(tmp_path):
    inputs = tokens()
    for form in ("sequence", "vector"):
        model = small_model(form=form)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.form == form
        assert np.array_equal(loaded(inputs).numpy(), model(inputs).numpy())


@pytest.mark.parametrize("form", ["sequence", "vector"])
def test_a_copy_from_config_and_weights_has_the_statistics(form):
    model = small_model(form=form)
    copy = CompletePersonalityModel.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    assert np.array_equal(copy(tokens()).numpy(), model(tokens()).numpy())
    for kind in ("static", "dynamic"):
        ours, theirs = (getattr(each.cross_attention, f"{kind}_standardisation") for each in (model, copy))
        assert np.array_equal(ours.mean, theirs.mean)
        assert np.array_equal(ours.std, theirs.std)
    assert copy.count_params() == CompletePersonalityModel(12, 8, 16, 2, hidden_dim=6).count_params()


def test_saved_weights_carry_the_standardisation(tmp_path):
    model, other = small_model(), small_model(seed=5)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert np.array_equal(other(tokens()).numpy(), model(tokens()).numpy())


def test_new_statistics_reach_functions_that_were_compiled_before():
    model = small_model()
    inputs = tokens()
    model.predict(inputs, verbose=0)
    model.set_statistics(np.full(12, 3), np.full(12, 2), np.full(8, -1), np.full(8, 5))
    assert model.predict(inputs, verbose=0) == pytest.approx(model(inputs).numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("layer_class", "arguments"),
    [
        (Standardisation, {"dim": 7, "standardised": True}),
        (CrossAttention, {"static_dim": 10, "dynamic_dim": 6, "fusion_dim": 8, "num_heads": 3}),
        (FeatureFusionModule, {"fusion_dim": 10, "dropout_rate": 0.1}),
        (PersonalityPredictionHead, {"hidden_dim": 9}),
        (
            CompletePersonalityModel,
            {
                "static_dim": 10,
                "dynamic_dim": 6,
                "fusion_dim": 8,
                "num_heads": 3,
                "dropout_rate": 0.2,
                "hidden_dim": 9,
                "form": "vector",
            },
        ),
    ],
)
def test_every_layer_is_rebuilt_from_its_own_config(layer_class, arguments):
    config = layer_class(**arguments, name="chosen").get_config()
    rebuilt = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer_class(**arguments)))
    assert config["name"] == "chosen"
    for name, value in arguments.items():
        assert config[name] == value
        assert rebuilt.get_config()[name] == value


def test_masked_mean_counts_real_tokens_only():
    values = np.array([[[1.0], [3.0], [np.nan]], [[2.0], [7.0], [6.0]]], np.float32)
    mask = np.array([[True, True, False], [True, False, True]])
    assert masked_mean(values, mask).numpy().tolist() == [[2.0], [4.0]]


def test_mixed_precision_keeps_times_and_scores_usable():
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    model = CompletePersonalityModel(12, 8, fusion_dim=16, dtype=policy)
    inputs = tokens()
    # float16 cannot tell 4000.0 s from 4001.0 s
    later = inputs | {
        "dynamic_time_s": inputs["dynamic_time_s"] + 4000,
        "static_time_s": inputs["static_time_s"] + 4001,
    }
    earlier = later | {"static_time_s": inputs["static_time_s"] + 4000}
    assert np.isfinite(model(later).numpy()).all()
    assert not np.array_equal(model(later).numpy(), model(earlier).numpy())


def test_a_deviation_of_zero_is_refused():
    with pytest.raises(ValueError, match="standard deviations"):
        Standardisation(2).set_statistics(np.zeros(2), np.array([1.0, 0.0]))
