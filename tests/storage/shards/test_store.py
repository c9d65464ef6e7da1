"""Feature shards of both formats: what goes in comes out, once, whole, and nothing else does."""

from __future__ import annotations

import json
import shutil
import tempfile
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import Family, FeatureStore, StoreError, VideoFeatures
from storage.files.paths import matching
from storage.maintenance.rewriting import rewrite
from storage.shards.features import COLUMNS


def read_all(store: FeatureStore, family: Family) -> dict[str, VideoFeatures]:
    """All features, having checked that no video comes twice."""
    videos = list(store.read(family))
    found = {video.video_id: video for video in videos}
    assert len(found) == len(videos)
    return found


def shards(root, family: Family) -> list:
    return sorted(matching(root / "features" / family.name / family.key, "shard-*"))


@settings(max_examples=25, deadline=None)
@given(
    dim=st.integers(1, 9),
    tokens=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    quality=st.lists(
        st.text(min_size=1, max_size=5).filter(lambda name: name not in COLUMNS), unique=True, max_size=3
    ).map(tuple),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_features_come_back_bit_for_bit(open_store, dim, tokens, quality, seed, assert_same_bits):
    rng = np.random.default_rng(seed)
    family = Family("static", dim, {}, quality)
    videos = []
    for number, count in enumerate(tokens):
        # Any 32 bits: NaN with its payload, infinities and denormals among them.
        bits = rng.integers(0, 2**32, (count, dim + len(quality)), dtype=np.uint32).view(np.float32)
        start_s = rng.random(count) * 1e6
        columns = {name: bits[:, dim + column] for column, name in enumerate(quality)}
        videos.append(VideoFeatures(f"{number}", "0" * 64, bits[:, :dim], start_s, start_s + 1, columns))
    with tempfile.TemporaryDirectory() as root:
        open_store(root).write(family, videos)
        for found, expected in zip(open_store(root).read(family), videos, strict=True):
            assert_same_bits(found, expected)


@pytest.fixture(scope="module")
def assert_same_bits():
    def _assert(found: VideoFeatures, expected: VideoFeatures) -> None:
        for name in ("vectors", "start_s", "end_s"):
            assert getattr(found, name).tobytes() == getattr(expected, name).tobytes()
        for name, column in expected.quality.items():
            assert found.quality[name].tobytes() == column.tobytes()

    return _assert


@pytest.mark.parametrize(
    ("family", "tokens"),
    [
        (Family("faces", 5, {}, ("detected",)), 375),
        (Family("static", 2048, {}, ("face_coverage", "face_score")), 16),
        (Family("dynamic", 1024, {}, ("face_coverage", "face_score", "fields")), 6),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_real_shapes_come_back_whole_and_one_by_one(open_store, root, draw, assert_same, family, tokens):
    names = [f"day {number % 3}/Ünï-{number}.mp4" for number in range(40)]
    videos = {name: draw(name, family, tokens + number % 2) for number, name in enumerate(names)}
    store = open_store(root)
    store.write(family, list(videos.values()))
    found = read_all(store, family)
    assert list(found) == names
    for name in names:
        assert_same(found[name], videos[name])
    for name in (names[0], names[17], names[39]):
        (video,) = store.read(family, [name])
        assert_same(video, videos[name])


def test_videos_that_are_not_there_are_passed_over(open_store, root, draw, static):
    store = open_store(root)
    store.write(static, [draw("a.mp4"), draw("b.mp4")])
    assert [video.video_id for video in store.read(static, ["c.mp4", "b.mp4"])] == ["b.mp4"]
    assert list(store.read(static, [])) == []


def test_done_names_each_video_with_the_bytes_that_it_was_made_from(open_store, root, draw, static):
    store = open_store(root)
    assert store.done(static) == {}
    videos = [draw("a.mp4"), draw("-b.mp4"), draw("c/d.mp4")]
    store.write(static, videos[:2])
    assert store.done(static) == {video.video_id: video.video_sha256 for video in videos[:2]}
    open_store(root).write(static, videos[2:])
    assert store.done(static) == {video.video_id: video.video_sha256 for video in videos}
    assert open_store(root).done(static) == store.done(static)


def test_video_in_two_shards_is_shown_once_and_the_newest_bytes_win(open_store, root, draw, static, assert_same):
    store = open_store(root)
    old, new = draw("a.mp4", content="old"), draw("a.mp4", content="new", tokens=5)
    store.write(static, [old, draw("b.mp4")])
    assert store.done(static)["a.mp4"] == old.video_sha256
    store.write(static, [draw("c.mp4"), new])
    for reader in (store, open_store(root)):
        assert_same(read_all(reader, static)["a.mp4"], new)
        assert set(read_all(reader, static)) == {"a.mp4", "b.mp4", "c.mp4"}
        assert reader.done(static)["a.mp4"] == new.video_sha256
        (only,) = reader.read(static, ["a.mp4"])
        assert_same(only, new)


def test_machine_whose_clock_is_slow_still_supersedes_what_is_there(
    open_store, root, draw, static, assert_same, monkeypatch
):
    store = open_store(root)
    store.write(static, [draw("a.mp4", content="old")])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 2 * 86_400)
    new = draw("a.mp4", content="new")
    open_store(root).write(static, [new])
    assert_same(read_all(store, static)["a.mp4"], new)


def test_reader_goes_on_with_what_was_there_when_it_began(open_store, root, draw, static):
    store = open_store(root)
    store.write(static, [draw("a.mp4")])
    store.write(static, [draw("b.mp4")])
    reading = store.read(static)
    assert next(reading).video_id == "a.mp4"
    store.write(static, [draw("b.mp4", content="new"), draw("c.mp4")])
    assert set(store.done(static)) == {"a.mp4", "b.mp4", "c.mp4"}
    (rest,) = reading
    assert rest.video_sha256 == draw("b.mp4").video_sha256


def test_shard_that_is_gone_is_reported_with_its_videos_and_hides_no_other(open_store, root, draw, static):
    store = open_store(root)
    store.write(static, [draw("a.mp4"), draw("b.mp4")])
    store.write(static, [draw("c.mp4")])
    lost = shards(root, static)[0]
    lost.unlink()
    for reader in (store, open_store(root)):
        with pytest.raises(StoreError, match=rf"{lost.name} is gone.*\b2 videos"):
            list(reader.read(static))
        assert [video.video_id for video in reader.read(static, ["c.mp4"])] == ["c.mp4"]


def test_commit_of_several_families_is_seen_as_a_whole(open_store, root, draw, static):
    faces = Family("faces", 5, {"min_score": 0.5}, ("detected",))

    def refuse() -> None:
        raise RuntimeError("not now")

    both = {static: [draw("a.mp4")], faces: [draw("a.mp4", faces)]}
    with pytest.raises(RuntimeError, match="not now"):
        open_store(root, confirm=refuse).write_all(both)
    store = open_store(root)
    assert (store.done(static), store.done(faces)) == ({}, {})
    store.write_all(both)
    assert set(store.done(static)) == set(store.done(faces)) == {"a.mp4"}
    assert store.manifest.table.version() == 1  # the table, and one commit


def test_more_videos_than_a_query_names_are_found_as_well(open_store, tmp_path, draw, static, monkeypatch):
    store = open_store(tmp_path)
    store.write(static, [draw("a.mp4", content="old"), draw("b.mp4")])
    store.write(static, [draw("a.mp4", content="new"), draw("c.mp4")])
    asked = {
        name: draw(name, content="new" if name == "a.mp4" else "").video_sha256 for name in ("a.mp4", "c.mp4", "d")
    }
    asked["b.mp4"] = draw("b.mp4", content="other").video_sha256
    for few in (4096, 1):
        monkeypatch.setattr("storage.shards.store.FEW", few)
        assert store.has(static, asked) == {"a.mp4", "c.mp4"}
        assert [video.video_id for video in store.read(static, ["c.mp4", "b.mp4", "d"])] == ["b.mp4", "c.mp4"]
        assert store.shard_numbers(static, ["a.mp4", "b.mp4", "c.mp4", "d"]).tolist() == [1, 0, 1, -1]


def test_families_are_kept_apart_and_described_in_clear(open_store, root, draw, static):
    other = Family("static", 8, {"fps": 24.0}, static.quality)
    faces = Family("faces", 5, {"min_score": 0.5}, ("detected",))
    store = open_store(root)
    assert store.families() == []
    for family in (static, other, faces):
        store.write(family, [draw(f"{family.key}.mp4", family)])
    assert store.families() == [faces, *sorted([static, other], key=lambda family: family.key)]
    for family in (static, other, faces):
        assert set(store.done(family)) == {f"{family.key}.mp4"}
    described = json.loads((root / "features/faces" / faces.key / "_family.json").read_text())
    assert described["settings"] == {"min_score": 0.5}
    assert described["key"] == faces.key


def test_shard_ids_are_unique_and_in_order(open_store, tmp_path, draw, static):
    store = open_store(tmp_path)
    ids = [store.write(static, [draw(f"{number}.mp4")]) for number in range(50)]
    assert len(set(ids)) == 50
    assert ids == sorted(ids)
    assert [path.stem for path in shards(tmp_path, static)] == [f"shard-{name}" for name in ids]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.zeros((0, 8), np.float32)}, r"vectors.*\(0, 8\)"),
        ({"vectors": np.zeros((3, 8))}, "vectors.*float32.*float64"),
        ({"vectors": np.zeros(8, np.float32)}, r"vectors.*\(8,\)"),
        ({"start_s": np.zeros(2)}, r"start_s.*\(3,\).*\(2,\)"),
        ({"start_s": np.zeros(3, np.float32)}, "start_s.*float64.*float32"),
        ({"end_s": np.array([1.0, np.nan, 3.0])}, "a.mp4: times"),
        ({"end_s": np.full(3, -1.0)}, "a.mp4: times"),
        ({"quality": {"face_coverage": np.zeros(4, np.float32)}}, r"face_coverage.*\(3,\).*\(4,\)"),
        ({"video_id": ""}, "video_id"),
        ({"video_id": "\udcff.mp4"}, "UTF-8"),
        ({"video_sha256": "A" * 64}, "video_sha256.*A{64}"),
    ],
)
def test_features_that_cannot_be_are_refused(draw, change, message):
    good = draw("a.mp4")
    values = {name: getattr(good, name) for name in VideoFeatures.__slots__}
    with pytest.raises(ValueError, match=message):
        VideoFeatures(**{**values, **change})


def test_features_of_another_family_and_doubled_videos_leave_no_shard(open_store, tmp_path, draw, static):
    store = open_store(tmp_path)
    wide = Family("static", 9, {}, static.quality)
    plain = Family("static", 8, {}, ())
    for videos, message in (
        ([], "video"),
        ([draw("a.mp4", wide)], r"a\.mp4.*\b8\b.*\b9\b"),
        ([draw("a.mp4", plain)], r"a\.mp4.*face_coverage"),
        ([draw("a.mp4"), draw("b.mp4"), draw("a.mp4", content="new")], r"\ba\.mp4"),
    ):
        with pytest.raises(ValueError, match=message):
            store.write(static, videos)
    assert shards(tmp_path, static) == []


def test_shard_of_another_family_in_the_place_of_one_is_refused(open_store, tmp_path, draw, static):
    other = Family("static", 8, {"fps": 24.0}, static.quality)
    store = open_store(tmp_path)
    store.write(static, [draw("a.mp4")])
    store.write(other, [draw("a.mp4")])
    shutil.copy(shards(tmp_path, static)[0], shards(tmp_path, other)[0])
    with pytest.raises(StoreError, match=rf"{shards(tmp_path, other)[0].parent}.*{static.key}"):
        list(store.read(other))


@pytest.mark.parametrize(
    "name", ["shard-99999999T999999999999-0123456789ab.parquet", "shard-\n.parquet", "shard-", ".h5"]
)
def test_file_with_an_impossible_name_disturbs_nobody(open_store, tmp_path, draw, static, name):
    store = open_store(tmp_path)
    store.write(static, [draw("a.mp4")])
    (store.folder(static) / name).write_bytes(b"?")
    store.write(static, [draw("b.mp4")])
    assert set(read_all(store, static)) == {"a.mp4", "b.mp4"}


def test_flipped_bits_never_change_what_a_reader_gets(open_store, tmp_path, draw, static, assert_same):
    videos = {name: draw(name, tokens=64) for name in ("a.mp4", "b.mp4")}
    open_store(tmp_path).write(static, list(videos.values()))
    path = shards(tmp_path, static)[0]
    whole = path.read_bytes()
    refused = 0
    for bit in np.random.default_rng(0).integers(0, 8 * len(whole), 300):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        try:
            found = read_all(open_store(tmp_path), static)
        except StoreError as error:
            assert path.name in str(error)  # noqa: PT017 - either outcome is right
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
            continue
        assert set(found) == set(videos)
        for name, video in videos.items():
            assert_same(found[name], video)
    assert refused > 100  # most bits matter


def test_folder_with_other_things_is_not_taken_for_a_store(open_store, tmp_path):
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(StoreError, match=r"holiday\.mp4"):
        open_store(tmp_path)
    with pytest.raises(StoreError, match=r"holiday\.mp4"):
        open_store(tmp_path / "holiday.mp4")
    with pytest.raises(StoreError, match=r"ftp://server/store.*s3://, gs://, az://"):
        open_store("ftp://server/store")
    with pytest.raises(StoreError, match=r"s3:///store.*s3://BUCKET/FOLDER"):
        open_store("s3:///store")
    with pytest.raises(StoreError, match=r"'csv'.*parquet, hdf5"):
        FeatureStore(tmp_path / "new", format="csv")


def test_store_that_cannot_be_written_says_so_in_one_line(open_store, draw, static):
    with pytest.raises(StoreError, match="/proc/store") as caught:
        open_store("/proc/store").write(static, [draw("a.mp4")])
    assert "\n" not in str(caught.value)


def test_damaged_description_of_a_family_is_refused_by_name(open_store, tmp_path, draw, static):
    open_store(tmp_path).write(static, [draw("a.mp4")])
    path = tmp_path / "features/static" / static.key / "_family.json"
    whole = path.read_text()
    for text in ("", "[]", "{}", whole.replace("25", "24")):
        path.write_text(text)
        with pytest.raises(StoreError, match=r"_family\.json"):
            open_store(tmp_path).families()
        with pytest.raises(StoreError, match=r"_family\.json"):
            open_store(tmp_path).write(static, [draw("b.mp4")])


def test_done_does_not_open_the_columns(open_store, root, draw, static):
    store = open_store(root)
    video = draw("a.mp4")
    store.write(static, [video])
    path = shards(root, static)[0]
    data = bytearray(path.read_bytes())
    # The whole columns: in Parquet all that comes before the footer, whose length stands at the end.
    first = data.find(video.vectors.tobytes())
    columns = slice(4, -int.from_bytes(data[-8:-4], "little") - 8) if first < 0 else slice(first, first + 32)
    data[columns] = bytes(len(data[columns]))
    path.write_bytes(data)
    assert set(open_store(root).done(static)) == {"a.mp4"}
    with pytest.raises(StoreError, match=path.name):
        list(open_store(root).read(static))


def test_cut_file_and_foreign_file_are_refused_by_name(open_store, root, draw, static):
    open_store(root).write(static, [draw("a.mp4")])
    path = shards(root, static)[0]
    whole = path.read_bytes()
    for data in (*(whole[:length] for length in (0, 4, len(whole) // 2, len(whole) - 1)), bytes(4096)):
        path.write_bytes(data)
        with pytest.raises(StoreError, match=path.name):
            list(open_store(root).read(static))


def test_shards_of_both_formats_are_one_store(root, draw, static, assert_same):
    FeatureStore(root, "parquet").write(static, [draw("a.mp4", content="old"), draw("b.mp4")])
    FeatureStore(root, "hdf5").write(static, [draw("a.mp4", content="new"), draw("c.mp4")])
    found = read_all(FeatureStore(root), static)
    assert set(found) == {"a.mp4", "b.mp4", "c.mp4"}
    assert_same(found["a.mp4"], draw("a.mp4", content="new"))


def test_float16_rounds_each_number_to_the_nearest_and_leaves_faces_alone(open_store, tmp_path, draw):
    family = Family("static", 6, {})
    rng = np.random.default_rng(0)
    large = (2.0 ** rng.uniform(-14, 15.9, (50, 6)) * rng.choice([-1, 1], (50, 6))).astype(np.float32)
    small = rng.uniform(-(2.0**-14), 2.0**-14, (50, 6)).astype(np.float32)
    times = np.arange(100.0)
    vectors = np.concatenate([large, small])
    open_store(tmp_path, dtype="float16").write(family, [VideoFeatures("a", "0" * 64, vectors, times, times, {})])
    (found,) = open_store(tmp_path).read(family)
    assert found.vectors.dtype == np.float32
    error = np.abs(found.vectors.astype(np.float64) - vectors.astype(np.float64))
    assert (error[:50] <= np.abs(large) * 2.0**-11).all()
    assert (error[50:] <= 2.0**-25).all()
    assert error[:50].max() > 0
    faces = Family("faces", 5, {})
    boxes = draw("a", faces)
    open_store(tmp_path, dtype="float16").write(faces, [boxes])
    assert next(open_store(tmp_path).read(faces)).vectors.tobytes() == boxes.vectors.tobytes()


def test_number_beyond_float16_is_refused_and_infinity_is_kept(open_store, tmp_path, draw):
    family = Family("static", 2, {})
    video = VideoFeatures("a", "0" * 64, np.array([[1, 7e4]], np.float32), np.zeros(1), np.zeros(1), {})
    with pytest.raises(ValueError, match=r"a: 70000\.0 .*float16"):
        open_store(tmp_path, dtype="float16").write(family, [video])
    infinite = VideoFeatures("a", "0" * 64, np.array([[np.inf, np.nan]], np.float32), np.zeros(1), np.zeros(1), {})
    open_store(tmp_path, dtype="float16").write(family, [infinite])
    np.testing.assert_array_equal(next(open_store(tmp_path).read(family)).vectors, infinite.vectors)


def test_reader_follows_videos_into_a_shard_that_took_the_place_of_others(open_store, root, draw, static):
    store = open_store(root)
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        store.write(static, [draw(name)])
    reading = store.read(static)
    assert next(reading).video_id == "a.mp4"
    other = open_store(root)
    assert len(rewrite(other, static, [path.name for path in other.shards(static)])) == 1
    assert len(shards(root, static)) == 1
    assert [video.video_id for video in reading] == ["b.mp4", "c.mp4"]


def test_shard_that_points_nowhere_is_refused_and_not_waited_for(open_store, tmp_path, draw, static):
    open_store(tmp_path).write(static, [draw("a.mp4")])
    path = shards(tmp_path, static)[0]
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is gone"):
        list(open_store(tmp_path).read(static))
