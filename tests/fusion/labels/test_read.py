"""Reading labels: the genuine First Impressions files, tables, and what a user can get wrong."""

import pickle
import re
import struct

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fusion.errors import LabelError
from fusion.labels.read import ID_COLUMNS, read_labels
from fusion.traits import TRAITS

HEADER = "video_id,neuroticism,openness,conscientiousness,extraversion,agreeableness\n"


def python2_pickle(table):
    """The bytes that Python 2 wrote for trait -> clip -> float: protocol 2, names as byte strings."""

    def text(value):
        encoded = value.encode("latin1")
        return b"U" + bytes([len(encoded)]) + encoded

    body = b"}("
    for trait, clips in table.items():
        body += text(trait) + b"}("
        for name, value in clips.items():
            body += text(name) + b"G" + struct.pack(">d", value)
        body += b"u"
    return b"\x80\x02" + body + b"u."


def first_impressions_table(**changes):
    clips = {"-AmMDnVl4s8.003.mp4": 0.25, "0ObEtA6Q8vU.004.mp4": 0.5}
    return {trait: dict(clips) for trait in (*TRAITS, "interview")} | changes


@pytest.mark.parametrize(("part", "count", "subjects"), [("training", 6000, 2624), ("validation", 2000, 1484)])
def test_the_genuine_first_impressions_files_are_read_whole(corpus, part, count, subjects):
    labels = read_labels(corpus / "labels" / f"annotation_{part}.pkl")
    assert len(labels) == len(set(labels.names)) == count
    assert labels.values.shape == (count, 5)
    assert labels.values.dtype == np.float32
    assert labels.values.min() >= 0
    assert labels.values.max() <= 1
    assert labels.subjects_known
    assert len(set(labels.subjects)) == subjects
    assert all(name.startswith(subject + ".") for name, subject in zip(labels.names, labels.subjects, strict=True))


def test_the_mean_baseline_on_the_genuine_labels_is_the_independently_measured_one(corpus):
    train = read_labels(corpus / "labels" / "annotation_training.pkl")
    validation = read_labels(corpus / "labels" / "annotation_validation.pkl")
    accuracy = 1 - np.abs(validation.values - train.values.mean(axis=0)).mean(axis=0)
    assert accuracy == pytest.approx([0.8847, 0.8739, 0.8806, 0.8990, 0.8790], abs=5e-5)


def test_neuroticism_of_first_impressions_is_turned_round_because_it_is_emotional_stability(corpus):
    path = corpus / "labels" / "annotation_validation.pkl"
    default, kept = read_labels(path), read_labels(path, invert_neuroticism=False)
    assert default.neuroticism_inverted
    assert not kept.neuroticism_inverted
    assert default.values[:, 4] == pytest.approx(1 - kept.values[:, 4], abs=1e-6)
    assert np.array_equal(default.values[:, :4], kept.values[:, :4])
    # as its name says, neuroticism falls where the other traits rise
    assert np.corrcoef(default.values.T)[4, :4].max() < -0.2


def test_a_drawn_python_2_pickle_gives_its_numbers_in_trait_order(tmp_path):
    table = first_impressions_table(
        openness={"-AmMDnVl4s8.003.mp4": 0.125, "0ObEtA6Q8vU.004.mp4": 0.75},
        neuroticism={"0ObEtA6Q8vU.004.mp4": 1.0, "-AmMDnVl4s8.003.mp4": 0.0},
    )
    (tmp_path / "a.pkl").write_bytes(python2_pickle(table))
    labels = read_labels(tmp_path / "a.pkl")
    assert labels.names == ("-AmMDnVl4s8.003.mp4", "0ObEtA6Q8vU.004.mp4")
    assert labels.subjects == ("-AmMDnVl4s8", "0ObEtA6Q8vU")
    assert labels.values.tolist() == [[0.125, 0.25, 0.25, 0.25, 1.0], [0.75, 0.5, 0.5, 0.5, 0.0]]


class _RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, protocol):
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(_RunsCode(tmp_path / "traces"), protocol))
    with pytest.raises(LabelError, match=r"it asks for (io|_io)\.open"):
        read_labels(tmp_path / "bad.pkl")
    assert not (tmp_path / "traces").exists()


@pytest.mark.parametrize(
    "reference", [b"cos\nsystem\n", b"cnumpy\nload\n", b"cnumpy.core.multiarray\nfrombuffer\n", b"cnumpy\ndtype.type\n"]
)
def test_only_the_two_needed_names_of_numpy_can_be_asked_for(tmp_path, reference):
    (tmp_path / "bad.pkl").write_bytes(reference + b"(S'x'\ntR.")
    with pytest.raises(LabelError, match="it asks for"):
        read_labels(tmp_path / "bad.pkl")


def test_a_pickle_hidden_in_an_object_scalar_is_not_unpickled(tmp_path):
    inner = pickle.dumps(_RunsCode(tmp_path / "traces"), 0)
    outer = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O'\ntRC" + bytes([len(inner)]) + inner + b"tR."
    (tmp_path / "bad.pkl").write_bytes(outer)
    with pytest.raises(LabelError):
        read_labels(tmp_path / "bad.pkl")
    assert not (tmp_path / "traces").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x02}(U\x08openn", b"\x80\x02]."])
def test_bytes_that_are_no_label_pickle_are_refused_in_one_line(tmp_path, content):
    (tmp_path / "bad.pkl").write_bytes(content)
    with pytest.raises(LabelError, match="annotation_") as caught:
        read_labels(tmp_path / "bad.pkl")
    assert "\n" not in str(caught.value)


def test_clips_of_a_pickle_that_lack_a_trait_are_named(tmp_path):
    (tmp_path / "a.pkl").write_bytes(python2_pickle(first_impressions_table(openness={"-AmMDnVl4s8.003.mp4": 0.1})))
    with pytest.raises(LabelError, match=r"lacks a trait of 0ObEtA6Q8vU\.004\.mp4"):
        read_labels(tmp_path / "a.pkl")


def test_a_table_is_read_in_any_column_order_and_taken_at_its_word(tmp_path):
    (tmp_path / "a.csv").write_text(
        "﻿Subject,Neuroticism,note,openness,conscientiousness,extraversion,agreeableness,Name\r\n"
        'p1,0.5,"a, b",0.1,0.2,0.3,0.4,-x.mp4\r\n'
        "p2,1,,0,0.2,0.3,0.4,b/y.mp4\r\n",
        encoding="utf-8",
    )
    labels = read_labels(tmp_path / "a.csv")
    assert labels.names == ("-x.mp4", "b/y.mp4")
    assert labels.subjects == ("p1", "p2")
    assert labels.values == pytest.approx(np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0, 0.2, 0.3, 0.4, 1]]))
    assert not labels.neuroticism_inverted


def test_parquet_gives_what_the_same_csv_gives(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + "a.mp4,0.5,0.1,0.2,0.3,0.4\nb.mp4,1,0,0.25,0.5,0.75\n")
    columns = {
        "clip": ["a.mp4", "b.mp4"],
        "neuroticism": pa.array([0.5, 1.0], pa.float32()),
        "openness": [0.1, 0.0],
        "conscientiousness": [0.2, 0.25],
        "extraversion": [0.3, 0.5],
        "agreeableness": [0.4, 0.75],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    from_csv, from_parquet = read_labels(tmp_path / "a.csv"), read_labels(tmp_path / "a.parquet")
    assert from_parquet.names == from_csv.names
    assert from_parquet.values.tolist() == from_csv.values.tolist()
    # without a subject column every clip stands for itself
    assert from_csv.subjects == from_csv.names == from_parquet.subjects
    assert not from_csv.subjects_known


def test_a_table_made_from_first_impressions_can_be_inverted(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + "a.mp4,0.75,0.1,0.2,0.3,0.4\n")
    labels = read_labels(tmp_path / "a.csv", invert_neuroticism=True)
    assert labels.values[0].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.25])
    assert labels.neuroticism_inverted


ROW = ",0.5,0.1,0.2,0.3,0.4\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (HEADER, "holds no labels"),
        ("video_id,openness\na.mp4,0.5\n", "lacks the columns conscientiousness, extraversion, agreeableness, neurot"),
        (HEADER.replace("video_id", "what") + "a" + ROW, r"lacks the column video_id \(or path, video, file"),
        (HEADER.replace("openness", "neuroticism"), "column neuroticism appears more than once"),
        (HEADER + "a" + ROW + "b" + ROW + "a" + ROW + "a" + ROW, ": a .* lines 2, 4 and 5;"),
        (HEADER + "a\0b" + ROW, "NUL character; correct it in line 2$"),
        (HEADER + "a,3,7,1,2,6\nb,4,4,4,4,4\n", r"from 1 to 7; bring .* for instance \(x - 1\) / 6 if"),
        (HEADER + "a,30,70,1,2,0\nb,4,4,4,4,100\n", r"from 0 to 100; bring .* for instance x / 100 if"),
        (HEADER + "a,30%,70 %,1%,2%,0%\n", "percentages; bring them .* divide by 100"),
        (
            HEADER + "a,1.5,0.1,0.2,0.3,0.4\nb,0,0,0,0,-0.1\nc" + ROW,
            r"in \[0, 1\]; .*line 2, column neuroticism: '1\.5'; line 3, column agreeab.*: '-0\.1'$",
        ),
        (HEADER + "a,nan,0.1,0.2,0.3,0.4\n", "line 2, column neuroticism: 'nan'$"),
        (HEADER + "a,,0.1,0.2,0.3,0.4\n", "line 2, column neuroticism: an empty cell$"),
        (HEADER + "a,0.5,0.1\n", "line 2: 3 cells.* header.* 6"),
        (HEADER + ROW, "a clip has no name: .*: line 2$"),
    ],
)
def test_a_wrong_table_is_refused_with_what_is_wrong(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(LabelError, match=message):
        read_labels(tmp_path / "a.csv")


def test_an_empty_trait_in_parquet_is_named(tmp_path):
    columns = {trait: [0.5, None] for trait in TRAITS} | {"name": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(LabelError, match=r"in \[0, 1\]; .* b, openness: nan; "):
        read_labels(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.pkl"])
def test_files_that_cannot_be_read_are_reported_with_their_path(tmp_path, name):
    with pytest.raises(LabelError, match=r"cannot read the labels .*No such file"):
        read_labels(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(LabelError, match="none of annotation"):
        read_labels(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_noise_is_not_taken_for_a_table(tmp_path, name):
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(500))
    with pytest.raises(LabelError):
        read_labels(tmp_path / name)


def test_an_unknown_ending_names_the_known_ones(tmp_path):
    with pytest.raises(LabelError, match=r"\.csv, \.parquet or \.pkl"):
        read_labels(tmp_path / "labels.xlsx")


@pytest.mark.parametrize("folders", [("", "", ""), ("train", "validation", "test")], ids=["flat", "folders"])
def test_the_official_files_are_read_together_and_each_clip_knows_its_part(tmp_path, folders):
    for number, (folder, part) in enumerate(zip(folders, ("training", "validation", "test"), strict=True)):
        table = {trait: {f"{number}0ObEtA6Q8v.001.mp4": 0.25} for trait in TRAITS}
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"annotation_{part}.pkl").write_bytes(python2_pickle(table))
    labels = read_labels(tmp_path)
    assert labels.parts == ("training", "validation", "test")
    assert labels.subjects == ("00ObEtA6Q8v", "10ObEtA6Q8v", "20ObEtA6Q8v")
    assert labels.neuroticism_inverted


def test_the_genuine_folder_is_read_as_6000_training_and_2000_validation_clips(corpus):
    labels = read_labels(corpus / "labels")
    assert (labels.parts.count("training"), labels.parts.count("validation")) == (6000, 2000)


def test_a_clip_in_two_official_files_is_named(tmp_path):
    for part in ("training", "test"):
        (tmp_path / f"annotation_{part}.pkl").write_bytes(python2_pickle(first_impressions_table()))
    with pytest.raises(
        LabelError,
        match=r"-AmMDnVl4s8\.003\.mp4 .* row 1 of annotation_training\.pkl and row 1 of annotation_test",
    ):
        read_labels(tmp_path)


def test_a_folder_without_the_official_files_says_which_they_are(tmp_path):
    with pytest.raises(LabelError, match=r"none of annotation_training\.pkl"):
        read_labels(tmp_path)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_may_state_the_split(tmp_path, ending):
    columns = {trait: [0.5, 0.25, 0.5] for trait in TRAITS}
    columns |= {"name": ["a", "b", "c"], "split": ["train", "Validation", "test"]}
    write = pq.write_table if ending == ".parquet" else pyarrow.csv.write_csv
    write(pa.table(columns), tmp_path / f"a{ending}")
    assert read_labels(tmp_path / f"a{ending}").parts == ("training", "validation", "test")
    write(pa.table(columns | {"split": ["train", "fold 3", "fold 4"]}), tmp_path / f"a{ending}")
    with pytest.raises(LabelError, match=r"a split is one of .* for b, c$"):
        read_labels(tmp_path / f"a{ending}")


LABELS = [["a.mp4", "0.5", "0.1", "0.2", "0.3", "0.4"], ["b/Zo\u00eb.mp4", "1", "0", "0.25", "1e-2", ".75"]]
VALUES = [[0.1, 0.2, 0.3, 0.4, 0.5], [0, 0.25, 0.01, 0.75, 1]]


def text_of(separator: str, *, decimal: str = ".", above: str = "", between: str = "") -> str:
    lines = [HEADER.strip().replace(",", separator)]
    lines += [separator.join([name, *(cell.replace(".", decimal) for cell in cells)]) for name, *cells in LABELS]
    return above + f"\r\n{between}".join(lines) + "\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"])
@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt"])
def test_what_spreadsheets_of_any_country_save_is_read(tmp_path, encoding, separator, decimal, ending):
    (tmp_path / f"a{ending}").write_bytes(text_of(separator, decimal=decimal).encode(encoding))
    labels = read_labels(tmp_path / f"a{ending}")
    assert labels.names == ("a.mp4", "b/Zo\u00eb.mp4")
    assert labels.values == pytest.approx(np.array(VALUES))


@pytest.mark.parametrize("above", ["sep=;\r\n", '"sep=;"\r\n', "\r\n", ";;;\r\n", '\r\n"";"" ;\r\n'])
@pytest.mark.parametrize("between", ["", ";;;;;\r\n", "\r\n ; ;;;;;;\r\n"])
def test_rows_of_separators_only_are_blank_and_lines_are_counted_all_the_same(tmp_path, above, between):
    text = text_of(";", above=above, between=between)
    (tmp_path / "a.csv").write_text(text, newline="", encoding="utf-8")
    assert read_labels(tmp_path / "a.csv").values == pytest.approx(np.array(VALUES))
    (tmp_path / "a.csv").write_text(text + "c.mp4;0_1;1;1;1;1", newline="", encoding="utf-8")
    with pytest.raises(LabelError, match=f"a.csv: .*line {len((text + 'x').splitlines())}, column neuroticism: '0_1'$"):
        read_labels(tmp_path / "a.csv")


@pytest.mark.parametrize("cell", ["0_1", "nan", "inf", "-Infinity", "1e999", "0x1", "\u0660.\u0665", "0.5.1", "1.2"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_is_no_number_is_named_with_its_line_column_and_value(tmp_path, cell, separator):
    text = text_of(separator) + f"c.mp4{separator}1{separator}{cell}" + f"{separator}0.5" * 3
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(LabelError, match=f"a.csv: .*line 4, column openness: {re.escape(repr(cell))}$"):
        read_labels(tmp_path / "a.csv")


def test_decimal_commas_between_commas_are_a_mistake_that_is_explained(tmp_path):
    row = "a.mp4," + ",".join(['" 0,5"'] * 5) + "\n"
    (tmp_path / "a.csv").write_text(HEADER + row)
    with pytest.raises(LabelError, match=r"line 2, column openness: ' 0,5'"):
        read_labels(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text(HEADER + row.replace('"', ""))
    with pytest.raises(LabelError, match=r"line 2: 11 cells.* header.* 6; .*0\.5, .*0,5"):
        read_labels(tmp_path / "a.csv")


def test_another_separator_is_named(tmp_path):
    (tmp_path / "a.csv").write_text(text_of("|"))
    with pytest.raises(LabelError, match=r"lacks the columns .* separated by commas, semicolons or tabs"):
        read_labels(tmp_path / "a.csv")


def test_a_workbook_with_another_ending_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(LabelError, match="save the table as CSV"):
        read_labels(tmp_path / "a.csv")


@pytest.mark.parametrize("column", ID_COLUMNS)
def test_labels_take_the_columns_that_lists_of_videos_take(tmp_path, column):
    (tmp_path / "a.csv").write_text(HEADER.replace("video_id", column.upper()) + "a.mp4" + ROW)
    assert read_labels(tmp_path / "a.csv").names == ("a.mp4",)
