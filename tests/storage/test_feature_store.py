"""Feature shards: what goes in comes out, once, whole, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import Family, FeatureStore, StoreError, VideoFeatures
from storage.parquet_store import HEADER_KEY, ROW_GROUP_BYTES


def read_all(store: FeatureStore, family: Family) -> dict[str, VideoFeatures]:
    """All features, having checked that no video comes twice."""
    videos = list(store.read(family))
    found = {video.video_id: video for video in videos}
    assert len(found) == len(videos)
    return found


def shards(tmp_path, family: Family) -> list:
    return sorted((tmp_path / "features" / family.name / family.key).glob("shard-*.parquet"))


@settings(max_examples=25, deadline=None)
@given(
    dim=st.integers(1, 9),
    tokens=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    quality=st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=3).map(tuple),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_features_come_back_bit_for_bit(dim, tokens, quality, seed, assert_same_bits):
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
        FeatureStore(root).write(family, videos)
        for found, expected in zip(FeatureStore(root).read(family), videos, strict=True):
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
def test_real_shapes_come_back_whole_and_one_by_one(tmp_path, draw, assert_same, family, tokens):
    names = [f"day {number % 3}/Ünï-{number}.mp4" for number in range(40)]
    videos = {name: draw(name, family, tokens + number % 2) for number, name in enumerate(names)}
    store = FeatureStore(tmp_path)
    store.write(family, list(videos.values()))
    found = read_all(store, family)
    assert list(found) == names
    for name in names:
        assert_same(found[name], videos[name])
    for name in (names[0], names[17], names[39]):
        (video,) = store.read(family, [name])
        assert_same(video, videos[name])
    groups = pq.read_metadata(shards(tmp_path, family)[0]).num_row_groups
    bytes_of_vectors = sum(video.vectors.nbytes for video in videos.values())
    assert groups == pytest.approx(bytes_of_vectors / ROW_GROUP_BYTES, abs=1)


def test_videos_that_are_not_there_are_passed_over(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4"), draw("b.mp4")])
    assert [video.video_id for video in store.read(static, ["c.mp4", "b.mp4"])] == ["b.mp4"]
    assert list(store.read(static, [])) == []


def test_done_names_each_video_with_the_bytes_that_it_was_made_from(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    assert store.done(static) == {}
    videos = [draw("a.mp4"), draw("-b.mp4"), draw("c/d.mp4")]
    store.write(static, videos[:2])
    assert store.done(static) == {video.video_id: video.video_sha256 for video in videos[:2]}
    FeatureStore(tmp_path).write(static, videos[2:])
    assert store.done(static) == {video.video_id: video.video_sha256 for video in videos}
    assert FeatureStore(tmp_path).done(static) == store.done(static)


def test_done_does_not_open_the_columns(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4")])
    path = shards(tmp_path, static)[0]
    data = bytearray(path.read_bytes())
    data[8:40] = bytes(32)  # the first page
    path.write_bytes(data)
    assert set(FeatureStore(tmp_path).done(static)) == {"a.mp4"}
    with pytest.raises(StoreError, match="damaged"):
        list(FeatureStore(tmp_path).read(static))


def test_video_in_two_shards_is_shown_once_and_the_newest_bytes_win(tmp_path, draw, static, assert_same):
    store = FeatureStore(tmp_path)
    old, new = draw("a.mp4", content="old"), draw("a.mp4", content="new", tokens=5)
    store.write(static, [old, draw("b.mp4")])
    assert store.done(static)["a.mp4"] == old.video_sha256
    store.write(static, [draw("c.mp4"), new])
    for reader in (store, FeatureStore(tmp_path)):
        assert_same(read_all(reader, static)["a.mp4"], new)
        assert set(read_all(reader, static)) == {"a.mp4", "b.mp4", "c.mp4"}
        assert reader.done(static)["a.mp4"] == new.video_sha256
        (only,) = reader.read(static, ["a.mp4"])
        assert_same(only, new)


def test_machine_whose_clock_is_slow_still_supersedes_what_is_there(tmp_path, draw, static, assert_same):
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4", content="old")])
    first = shards(tmp_path, static)[0]
    first.rename(first.with_name("shard-29991231T235959999999-0123456789ab.parquet"))
    new = draw("a.mp4", content="new")
    store.write(static, [new])
    assert_same(read_all(store, static)["a.mp4"], new)


def test_reader_goes_on_with_what_was_there_when_it_began(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4")])
    store.write(static, [draw("b.mp4")])
    reading = store.read(static)
    assert next(reading).video_id == "a.mp4"
    store.write(static, [draw("b.mp4", content="new"), draw("c.mp4")])
    assert set(store.done(static)) == {"a.mp4", "b.mp4", "c.mp4"}
    (rest,) = reading
    assert rest.video_sha256 == draw("b.mp4").video_sha256


def test_shard_taken_away_brings_back_what_it_hid(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4", content="old")])
    store.write(static, [draw("a.mp4", content="new")])
    assert store.done(static) == {"a.mp4": draw("a.mp4", content="new").video_sha256}
    shards(tmp_path, static)[1].unlink()
    assert store.done(static) == {"a.mp4": draw("a.mp4", content="old").video_sha256}


def test_families_are_kept_apart_and_described_in_clear(tmp_path, draw, static):
    other = Family("static", 8, {"fps": 24.0}, static.quality)
    faces = Family("faces", 5, {"min_score": 0.5}, ("detected",))
    store = FeatureStore(tmp_path)
    assert store.families() == []
    for family in (static, other, faces):
        store.write(family, [draw(f"{family.key}.mp4", family)])
    assert store.families() == [faces, *sorted([static, other], key=lambda family: family.key)]
    for family in (static, other, faces):
        assert set(store.done(family)) == {f"{family.key}.mp4"}
    described = json.loads((tmp_path / "features/faces" / faces.key / "family.json").read_text())
    assert described["settings"] == {"min_score": 0.5}
    assert described["key"] == faces.key


def test_shard_ids_are_unique_and_in_order(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    ids = [store.write(static, [draw(f"{number}.mp4")]) for number in range(50)]
    assert len(set(ids)) == 50
    assert ids == sorted(ids)
    assert [path.stem for path in shards(tmp_path, static)] == [f"shard-{name}" for name in ids]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.zeros((0, 8), np.float32)}, "N >= 1"),
        ({"vectors": np.zeros((3, 8))}, "vectors must be float32"),
        ({"vectors": np.zeros(8, np.float32)}, r"vectors must be \[N, dim\]"),
        ({"start_s": np.zeros(2)}, "start_s must be"),
        ({"start_s": np.zeros(3, np.float32)}, "start_s must be float64"),
        ({"end_s": np.array([1.0, np.nan, 3.0])}, "times must be finite"),
        ({"end_s": np.full(3, -1.0)}, "none may end before it starts"),
        ({"quality": {"face_coverage": np.zeros(4, np.float32)}}, "face_coverage must be"),
        ({"video_id": ""}, "video_id must be"),
        ({"video_id": "\udcff.mp4"}, "UTF-8"),
        ({"video_sha256": "A" * 64}, "64 lower-case hex digits"),
    ],
)
def test_features_that_cannot_be_are_refused(draw, change, message):
    good = draw("a.mp4")
    values = {name: getattr(good, name) for name in VideoFeatures.__slots__}
    with pytest.raises(ValueError, match=message):
        VideoFeatures(**{**values, **change})


def test_features_of_another_family_and_doubled_videos_leave_no_shard(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    wide = Family("static", 9, {}, static.quality)
    plain = Family("static", 8, {}, ())
    for videos, message in (
        ([], "at least one video"),
        ([draw("a.mp4", wide)], "vectors have 8 numbers, not 9"),
        ([draw("a.mp4", plain)], "has quality"),
        ([draw("a.mp4"), draw("b.mp4"), draw("a.mp4", content="new")], "a video comes twice in one shard: a.mp4"),
    ):
        with pytest.raises(ValueError, match=message):
            store.write(static, videos)
    assert shards(tmp_path, static) == []


def rewrite(path, *, header=lambda text: text, rows=lambda table: table) -> None:
    """Write a shard anew with a changed header or changed rows, as no program of ours would."""
    table = rows(pq.read_table(path))
    text = pq.read_metadata(path).metadata[HEADER_KEY.encode()].decode()
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({HEADER_KEY: header(text)})


def resealed(text: str) -> str:
    """A header's first line with a checksum that is right again."""
    line = text.partition("\n")[0]
    return f"{line}\n{hashlib.sha256(line.encode()).hexdigest()}"


def set_column(name: str, change):
    def _set(table):
        column = table.schema.get_field_index(name)
        field = table.schema.field(column)
        return table.set_column(column, field, pa.array(change(table[name].to_pylist()), field.type))

    return _set


@pytest.mark.parametrize(
    "rows",
    [
        set_column("vector", lambda vectors: [[number + 1e-6 for number in vectors[0]], *vectors[1:]]),
        set_column("start_s", lambda times: [times[0] - 1e-9, *times[1:]]),
        set_column("face_score", lambda scores: scores[::-1]),
        set_column("video_id", lambda ids: ids[::-1]),
        set_column("video_sha256", lambda digests: ["0" * 64] * len(digests)),
        set_column("token", lambda tokens: [number + 1 for number in tokens]),
        lambda table: table.slice(1),
        lambda table: table.drop_columns("face_score"),
        lambda table: table.rename_columns({"face_score": "score"}),
    ],
    ids=["vector", "time", "quality", "video_id", "sha256", "token", "row lost", "column lost", "column renamed"],
)
def test_shard_whose_rows_are_not_those_of_its_header_is_refused_by_name(tmp_path, draw, static, rows):
    FeatureStore(tmp_path).write(static, [draw("a.mp4"), draw("b.mp4")])
    path = shards(tmp_path, static)[0]
    rewrite(path)
    assert len(read_all(FeatureStore(tmp_path), static)) == 2  # the rewriting as such does no harm
    rewrite(path, rows=rows)
    with pytest.raises(StoreError, match=f"{path.name} is damaged"):
        list(FeatureStore(tmp_path).read(static))


@pytest.mark.parametrize(
    "header",
    [
        lambda text: text.replace("a.mp4", "c.mp4"),
        lambda text: resealed(text.replace('"dim":8', '"dim":4')),
        lambda text: resealed(text.replace('"fps":25', '"fps":24')),
        lambda text: resealed(text.replace('"key":"', '"key":"0')),
        lambda text: resealed("{}"),
        lambda text: resealed("[]"),
        lambda text: resealed("not JSON"),
        lambda text: "",
    ],
    ids=["video", "dim", "settings", "key", "no values", "list", "text", "empty"],
)
def test_shard_whose_header_contradicts_itself_is_refused_by_name(tmp_path, draw, static, header):
    FeatureStore(tmp_path).write(static, [draw("a.mp4"), draw("b.mp4")])
    path = shards(tmp_path, static)[0]
    rewrite(path, header=header)
    for question in (FeatureStore(tmp_path).done, lambda family: list(FeatureStore(tmp_path).read(family))):
        with pytest.raises(StoreError, match=f"{path.name} is damaged"):
            question(static)


def test_shard_of_a_newer_schema_is_refused_as_such(tmp_path, draw, static):
    FeatureStore(tmp_path).write(static, [draw("a.mp4")])
    path = shards(tmp_path, static)[0]
    rewrite(path, header=lambda text: resealed(text.replace('"schema_version":1', '"schema_version":2')))
    with pytest.raises(StoreError, match=rf"{path.name}: schema version 2 is newer .* update it"):
        FeatureStore(tmp_path).done(static)


def test_shard_in_another_familys_folder_is_refused(tmp_path, draw, static):
    other = Family("static", 8, {"fps": 24.0}, static.quality)
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4")])
    store.write(other, [draw("a.mp4")])
    shutil.copy(shards(tmp_path, static)[0], shards(tmp_path, other)[0].parent)
    with pytest.raises(StoreError, match="holds features of another kind"):
        store.done(other)


def test_foreign_parquet_file_and_cut_file_are_refused_by_name(tmp_path, draw, static):
    FeatureStore(tmp_path).write(static, [draw("a.mp4")])
    path = shards(tmp_path, static)[0]
    whole = path.read_bytes()
    pq.write_table(pq.read_table(path), path)
    with pytest.raises(StoreError, match=f"{path.name} is damaged: it has no header"):
        FeatureStore(tmp_path).done(static)
    for length in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=f"{path.name} is damaged"):
            FeatureStore(tmp_path).done(static)


def test_flipped_bits_never_change_what_a_reader_gets(tmp_path, draw, static, assert_same):
    videos = {name: draw(name) for name in ("a.mp4", "b.mp4")}
    FeatureStore(tmp_path).write(static, list(videos.values()))
    path = shards(tmp_path, static)[0]
    whole = path.read_bytes()
    refused = 0
    for bit in np.random.default_rng(0).integers(0, 8 * len(whole), 300):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        try:
            found = read_all(FeatureStore(tmp_path), static)
        except StoreError as error:
            assert path.name in str(error)  # noqa: PT017 - either outcome is right
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
            continue
        assert set(found) == set(videos)
        for name, video in videos.items():
            assert_same(found[name], video)
    assert refused > 100  # most bits matter


def test_folder_with_other_things_is_not_taken_for_a_store(tmp_path):
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(StoreError, match=r"is not a store: it holds other files, such as holiday\.mp4"):
        FeatureStore(tmp_path)
    with pytest.raises(StoreError, match="it is a file; name a folder"):
        FeatureStore(tmp_path / "holiday.mp4")
    with pytest.raises(StoreError, match="only local folders"):
        FeatureStore("s3://bucket/store")
    with pytest.raises(StoreError, match="unknown store format 'csv': choose one of parquet"):
        FeatureStore(tmp_path / "new", format="csv")


def test_store_that_cannot_be_written_says_so_in_one_line(draw, static):
    with pytest.raises(StoreError, match="cannot make the folder") as caught:
        FeatureStore("/proc/store").write(static, [draw("a.mp4")])
    assert "\n" not in str(caught.value)


def test_damaged_description_of_a_family_is_refused_by_name(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4")])
    path = tmp_path / "features/static" / static.key / "family.json"
    whole = path.read_text()
    for text in ("", "[]", "{}", whole.replace("25", "24")):
        path.write_text(text)
        with pytest.raises(StoreError, match=r"family\.json is damaged"):
            store.families()
        with pytest.raises(StoreError, match=r"family\.json is damaged"):
            store.write(static, [draw("b.mp4")])


def test_duckdb_reads_the_shards_as_they_lie(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    newest = [draw("a.mp4", content="new"), draw("b.mp4", tokens=4), draw("-c.mp4", tokens=1)]
    store.write(static, [draw("a.mp4", content="old"), newest[1]])
    store.write(static, [newest[0], newest[2]])
    files = str(shards(tmp_path, static)[0].parent / "shard-*.parquet")
    rows = duckdb.sql(
        f"""
        SELECT video_id, token, start_s, face_score, vector, typeof(vector)
        FROM read_parquet('{files}', filename = true)
        QUALIFY filename = max(filename) OVER (PARTITION BY video_id) ORDER BY video_id, token
        """
    ).fetchall()
    expected = [
        (video.video_id, token, video.start_s[token], video.quality["face_score"][token], tuple(video.vectors[token]))
        for video in sorted(newest, key=lambda video: video.video_id)
        for token in range(video.tokens)
    ]
    assert [(*row[:4], tuple(row[4])) for row in rows] == expected
    assert {row[5] for row in rows} == {"FLOAT[]"}
