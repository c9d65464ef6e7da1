"""Every picture of the model and of features can be printed, whatever videos and people are called."""

from __future__ import annotations

import numpy as np
import pytest
from printable import LARGER_PAGE_MM, faults_of

from fusion.features.dimensions import DimensionMeter
from fusion.features.identity import IdentityMeter
from fusion.model.architecture import Architecture, Block
from fusion.pictures.architectures import plot_architectures, plot_costs
from fusion.pictures.attention import plot_attention_map
from fusion.pictures.features import plot_components, plot_dimensions, plot_identity
from fusion.pictures.heads import plot_head_scores, plot_token_relations
from fusion.pictures.timeline import TimeLine, animate_time_line, plot_time_line

NAME = "Features: $\\frac{1}$ " + 25 * "Weather8" + ".mp4"
RNG = np.random.default_rng(0)
WEIGHTS = RNG.dirichlet(np.ones(20), (4, 16))
FACES_S, MOTION_S = np.linspace(600, 650, 16), np.linspace(600, 650, 20)
LINE = TimeLine(WEIGHTS, RNG.normal(0, 1e-6, WEIGHTS.shape), MOTION_S, MOTION_S + 2.5, "conscientiousness")
TALL, WIDE = [np.zeros((128, 72, 3), np.uint8)] * 9, [np.zeros((72, 128, 3), np.uint8)] * 9
BRANCHES = Architecture(
    layers=(),
    parameters=371_717,
    trainable=371_461,
    blocks=(
        Block("input 1: 16 x 2048", 0, 0, 0),
        Block("input 2: 16 x 1024", 0, 0, 0),
        Block("cross_attention/dynamic_projection", 1, 262_272, 4_190_000),
        Block("cross_attention/static_projection", 1, 131_200, 786_000),
        Block("cross_attention/attention", 5, 264_000, 102_000_000_000),
    ),
    edges=((0, 2), (1, 3), (2, 4), (3, 4)),
)
PEOPLE = [f"a person with a long name, {number}" for number in range(8)]


def identity():
    meter = IdentityMeter(dict.fromkeys(PEOPLE, 2))
    for person in PEOPLE * 2:
        meter.add(person, RNG.normal(size=(4, 16)).astype(np.float32))
    return plot_identity(meter.result(), NAME)


def dimensions(picture):
    meter = DimensionMeter(16)
    tokens = 1e-4 * RNG.normal(size=(80, 16)).astype(np.float32)
    tokens[:, 3], tokens[:, 5] = 0, 7e-4
    tokens[:, 7] = np.minimum(tokens[:, 7], 0)
    for person, rows in zip(PEOPLE * 5, np.split(tokens, 40), strict=True):
        meter.add(rows, person)
    if picture == "dimensions":
        return plot_dimensions(meter.dimensions(), NAME)
    return plot_components(meter.components(4), *meter.sample(), NAME)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot_attention_map(WEIGHTS, static_time_s=FACES_S, dynamic_time_s=MOTION_S, title=NAME),
        lambda: plot_attention_map(WEIGHTS[:1]),
        lambda: plot_head_scores(WEIGHTS, FACES_S, MOTION_S, heading=NAME),
        lambda: plot_token_relations(WEIGHTS, FACES_S, MOTION_S, heading=NAME),
        lambda: plot_time_line(LINE, TALL, FACES_S[:9], heading=NAME),
        lambda: plot_time_line(LINE, WIDE, FACES_S[:9], heading=NAME),
        lambda: animate_time_line(LINE, TALL, FACES_S[:9], heading=NAME),
        identity,
        lambda: dimensions("dimensions"),
        lambda: dimensions("components"),
        lambda: plot_costs(
            ["dynamic_only", "i3d"], {what: [4e5, 1.02e11] for what in ("parameters", "ms", "MB", "FLOPs")}
        ),
        lambda: plot_architectures({"specified model, vectors of 512 and 256": BRANCHES}),
        lambda: plot_architectures({f"specified model, vectors of 512 and 25{n}": BRANCHES for n in range(3)}),
    ],
)
def test_every_text_is_of_8_pt_whole_and_by_itself(draw):
    assert faults_of(draw) == []


def test_many_networks_fit_a_larger_sheet():
    architectures = {f"specified model, vectors of 512 and 25{n}": BRANCHES for n in range(8)}
    assert faults_of(lambda: plot_architectures(architectures), LARGER_PAGE_MM) == []
