"""Batches streamed from a source: every clip once an epoch, in an order of the seed's, with bounded memory."""

import numpy as np
import pytest

from fusion.clips.batches import plan_epoch, read_batches
from fusion.clips.sources import ClipsInMemory, KeptClips, RowsOf, bytes_of, clips_of
from fusion.clips.tokens import ClipTokens


def clip(number: int, tokens: int = 1) -> ClipTokens:
    times = np.zeros(tokens, np.float32)
    return ClipTokens(
        f"{number}", np.full((tokens, 2), number, np.float32), times, np.ones((1, 2), np.float32), times[:1]
    )


class Shards:
    """Clips in groups, whose reading is watched."""

    def __init__(self, sizes):
        self._groups = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        self.reads: list[list[int]] = []

    def __len__(self):
        return sum(map(len, self._groups))

    def groups(self):
        return self._groups

    def read(self, rows):
        self.reads.append(rows.tolist())
        return [clip(row) for row in rows]


@pytest.mark.parametrize(("count", "batch_size", "sizes"), [(65, 32, [22, 22, 21]), (64, 32, [32, 32]), (5, 32, [5])])
def test_batches_are_dealt_evenly(count, batch_size, sizes):
    plan = plan_epoch([np.arange(count)], batch_size, buffer_clips=1, rng=np.random.default_rng(0))
    assert [len(rows) for rows in plan.batches] == sizes


@pytest.mark.parametrize("buffer_clips", [1, 30, 1000])
def test_an_epoch_deals_every_clip_once_in_an_order_that_the_seed_decides(buffer_clips):
    groups = Shards([10] * 20).groups()
    orders = []
    for seed in (0, 0, 1):
        plan = plan_epoch(groups, 16, buffer_clips=buffer_clips, rng=np.random.default_rng(seed))
        orders.append(np.concatenate(plan.batches).tolist())
    assert sorted(orders[0]) == list(range(200))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_a_buffer_that_holds_everything_leaves_no_trace_of_the_groups():
    # how far apart neighbours of a group end up: as far as two clips drawn at random, a third of the whole on average
    groups = Shards([10] * 100).groups()
    order = np.concatenate(plan_epoch(groups, 50, buffer_clips=1000, rng=np.random.default_rng(0)).batches)
    place = np.argsort(order)
    assert np.abs(np.diff(place.reshape(100, 10), axis=1)).mean() == pytest.approx(1000 / 3, rel=0.1)


def test_no_more_clips_wait_than_the_buffer_and_a_group_hold():
    source = Shards([10] * 50)
    plan = plan_epoch(source.groups(), 5, buffer_clips=40, rng=np.random.default_rng(0))
    used = 0
    for rows, _ in read_batches(source, plan):
        used += len(rows)
        assert sum(map(len, source.reads)) - used <= 40 + 10
    assert used == 500
    assert sorted(row for rows in source.reads for row in rows) == list(range(500))


def test_a_batch_holds_the_clips_that_it_names():
    source = Shards([7, 1, 12])
    plan = plan_epoch(source.groups(), 6, buffer_clips=9, rng=np.random.default_rng(0))
    for rows, inputs in read_batches(source, plan):
        assert inputs["static"][:, 0, 0].tolist() == rows.tolist()


def test_some_rows_of_a_source_keep_their_numbers_and_groups():
    some = RowsOf(Shards([3, 3, 3]), np.array([1, 2, 7]))
    assert [group.tolist() for group in some.groups()] == [[1, 2], [7]]
    assert [(row, kept.video_id) for row, kept in clips_of(some)] == [(1, "1"), (2, "2"), (7, "7")]


@pytest.mark.parametrize(("room", "kept"), [(6, True), (5, False)])
def test_clips_are_kept_only_where_all_fit(room, kept):
    source = Shards([3, 3])
    keeper = KeptClips(room * bytes_of(clip(0)))
    assert len(list(keeper.pass_on(clips_of(source)))) == 6
    again = keeper.instead_of(source)
    assert (again is not source) == kept
    source.reads.clear()
    assert [read.video_id for read in again.read(np.array([4, 1]))] == ["4", "1"]
    assert (source.reads == []) == kept


def test_clips_in_memory_are_a_source():
    source = ClipsInMemory([clip(0), clip(1)])
    assert [read.video_id for _, read in clips_of(source)] == ["0", "1"]
