"""Parquet shards: what other programs see, and files that no program of ours would have written."""

from __future__ import annotations

import hashlib
import json

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from storage import Family, FeatureStore, StoreError
from storage.errors import NewerVersionError
from storage.shards.formats import check_shard
from storage.shards.parquet import HEADER_KEY, ROW_GROUP_BYTES


def shards(tmp_path, family: Family) -> list:
    return sorted((tmp_path / "features" / family.name / family.key).glob("shard-*.parquet"))


def rewrite(path, *, header=lambda text: text, rows=lambda table: table) -> None:
    """Rewrite a shard with a changed header or changed rows, as no program of ours would."""
    table = rows(pq.read_table(path))
    text = pq.read_metadata(path).metadata[HEADER_KEY.encode()].decode()
    vector = table.schema.field("vector").type
    with (
        pa.OSFile(str(path), "wb") as sink,
        pq.ParquetWriter(sink, table.schema, compression="none", use_dictionary=False, data_page_size=2**30) as writer,
    ):
        writer.write_table(table)
        place = sink.tell() - len(table) * vector.list_size * vector.value_type.bit_width // 8
        writer.add_key_value_metadata(
            {HEADER_KEY: header(text), "traitline_vectors": json.dumps([(place, len(table))])}
        )


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
    check_shard(path)  # the rewriting as such does no harm
    rewrite(path, rows=rows)
    with pytest.raises(StoreError, match=path.name):
        check_shard(path)


@pytest.mark.parametrize("name", ["video_id", "video_sha256", "token"])
def test_labels_that_say_other_than_the_header_change_nothing_for_readers(tmp_path, draw, static, assert_same, name):
    FeatureStore(tmp_path).write(static, [draw("a.mp4"), draw("b.mp4")])
    rewrite(shards(tmp_path, static)[0], rows=set_column(name, lambda values: values[::-1]))
    first, second = FeatureStore(tmp_path).read(static)
    assert_same(first, draw("a.mp4"))
    assert_same(second, draw("b.mp4"))


def test_row_groups_have_about_the_size_that_was_measured_best(tmp_path, draw):
    family = Family("static", 2048, {})
    FeatureStore(tmp_path).write(family, [draw(f"{number}.mp4", family, 16 + number % 2) for number in range(40)])
    groups = pq.read_metadata(shards(tmp_path, family)[0]).num_row_groups
    assert groups == pytest.approx(40 * 16.5 * 2048 * 4 / ROW_GROUP_BYTES, abs=1)


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
    with pytest.raises(StoreError, match=path.name):
        list(FeatureStore(tmp_path).read(static))


def test_shard_of_a_newer_version_is_refused_as_such(tmp_path, draw, static):
    FeatureStore(tmp_path).write(static, [draw("a.mp4")])
    path = shards(tmp_path, static)[0]
    rewrite(path, header=lambda text: resealed(text.replace('"shard_version":4', '"shard_version":5')))
    with pytest.raises(NewerVersionError, match=rf"{path.name}: shard version 5 .*\b4\b"):
        list(FeatureStore(tmp_path).read(static))


def test_foreign_parquet_file_is_refused_by_name(tmp_path, draw, static):
    FeatureStore(tmp_path).write(static, [draw("a.mp4")])
    path = shards(tmp_path, static)[0]
    pq.write_table(pq.read_table(path), path)
    with pytest.raises(StoreError, match=path.name):
        list(FeatureStore(tmp_path).read(static))


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


def test_long_footer_is_read_whole(tmp_path, draw, static):
    videos = [draw(f"{'long name ' * 20}{number}.mp4", tokens=1) for number in range(400)]
    store = FeatureStore(tmp_path)
    store.write(static, videos)
    assert [video.video_id for video in store.read(static)] == [video.video_id for video in videos]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pandas_and_polars_read_the_shards_as_they_lie(tmp_path, draw, static, dtype):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    videos = [draw("a.mp4"), draw("b.mp4", tokens=4)]
    FeatureStore(tmp_path, dtype=dtype).write(static, videos)
    truth = np.concatenate([video.rounded(dtype).vectors for video in videos])
    path = shards(tmp_path, static)[0]
    for frame in (pandas.read_parquet(path), polars.read_parquet(path)):
        assert list(frame["video_id"]) == ["a.mp4"] * 3 + ["b.mp4"] * 4
        assert list(frame["token"]) == [0, 1, 2, 0, 1, 2, 3]
        np.testing.assert_array_equal(np.stack([np.asarray(vector) for vector in frame["vector"]]), truth)
        np.testing.assert_array_equal(frame["end_s"], np.concatenate([video.end_s for video in videos]))


def test_duckdb_reads_float16_too(tmp_path, draw, static):
    video = draw("a.mp4")
    FeatureStore(tmp_path, dtype="float16").write(static, [video])
    rows = duckdb.sql(f"SELECT vector FROM read_parquet('{shards(tmp_path, static)[0]}') ORDER BY token").fetchall()
    np.testing.assert_array_equal(np.array([row[0] for row in rows]), video.rounded("float16").vectors)


def test_folder_of_a_family_opens_as_one_dataset(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4"), draw("b.mp4", tokens=4)])
    store.write(static, [draw("c.mp4")])
    folder = store.folder(static)
    pandas, polars, fastparquet = map(pytest.importorskip, ("pandas", "polars", "fastparquet"))
    arrow = ds.dataset(folder).to_table()
    duck = duckdb.sql(f"SELECT video_id, token, face_score, vector FROM '{folder}/*.parquet'").fetchall()
    rows = {
        "pyarrow": zip(
            *(arrow[name].to_pylist() for name in ("video_id", "token", "face_score", "vector")), strict=True
        ),
        "duckdb": duck,
    }
    for name, frame in {
        "pandas": pandas.read_parquet(folder),
        "polars": polars.scan_parquet(folder, hidden_file_prefix="_").collect(),
        "fastparquet": fastparquet.ParquetFile(str(folder)).to_pandas(),
    }.items():
        columns = [list(frame[column]) for column in ("video_id", "token", "face_score", "vector")]
        rows[name] = zip(*columns, strict=True)
    truth = {
        (video.video_id, token): (video.quality["face_score"][token], *video.vectors[token])
        for video in (draw("a.mp4"), draw("b.mp4", tokens=4), draw("c.mp4"))
        for token in range(video.tokens)
    }
    for name, found in rows.items():
        by_key = {(video, token): (score, *vector) for video, token, score, vector in found}
        assert by_key == truth, name


def test_manifest_tells_other_programs_which_rows_count(tmp_path, draw, static):
    polars = pytest.importorskip("polars")
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4", content="old"), draw("b.mp4")])
    store.write(static, [draw("a.mp4", content="new")])
    manifest = polars.read_delta(str(tmp_path / "manifest"))
    newest = manifest.sort("version", "shard").unique(["family", "video_id"], keep="last")
    assert dict(newest.select("video_id", "video_sha256").iter_rows()) == store.done(static)
    for row in newest.iter_rows(named=True):
        tokens = polars.read_parquet(store.folder(static) / row["shard"]).slice(row["first_row"], row["rows"])
        assert set(tokens["video_id"]) == {row["video_id"]}
        assert set(tokens["video_sha256"]) == {row["video_sha256"]}
