"""Groups come from the user's table alone, by clip or by person."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fusion.errors import LabelError
from fusion.labels.groups import read_groups

VIDEOS, PEOPLE = ("a/x.mp4", "y.mp4", "z.mp4"), ("p1", "p2", "p1")


def test_groups_are_found_by_person_and_what_the_table_leaves_open_is_said(tmp_path):
    (tmp_path / "g.csv").write_text("Subject,Gender,age\np1,f,\np3,m,old\n")
    found = read_groups(tmp_path / "g.csv", VIDEOS, PEOPLE)
    assert {name: list(groups) for name, groups in found.items()} == {
        "gender": ["f", "(not given)", "f"],
        "age": ["(not given)"] * 3,
    }


def test_groups_are_found_by_clip_and_numbers_are_groups_too(tmp_path):
    pq.write_table(pa.table({"video_id": ["x.mp4", "z.mp4"], "decade": [3, 4]}), tmp_path / "g.parquet")
    assert list(read_groups(tmp_path / "g.parquet", VIDEOS, PEOPLE)["decade"]) == ["3", "(not given)", "4"]


def test_a_label_file_with_more_columns_will_do(tmp_path):
    header = "video_id,subject,split,openness,conscientiousness,extraversion,agreeableness,neuroticism,gender\n"
    (tmp_path / "g.csv").write_text(header + "y.mp4,p2,train,0,0,0,0,0,f\n")
    assert list(read_groups(tmp_path / "g.csv", VIDEOS, PEOPLE)) == ["gender"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("gender\nf\n", r"g\.csv.*video_id.*subject"),
        ("subject,gender\np1,f\np1,m\n", r"subject.* p1$"),
        ("subject\np1\n", "subject$"),
        ("subject,income\n" + "".join(f"p{n},{n}\n" for n in range(31)), r"income.*\b31\b"),
        ("subject,gender\np1\n", "line 2: 1 cell.* 2$"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_with_what_is_wrong(tmp_path, content, message):
    (tmp_path / "g.csv").write_text(content)
    with pytest.raises(LabelError, match=message):
        read_groups(tmp_path / "g.csv", VIDEOS, PEOPLE)


def test_a_table_that_is_not_there_or_of_another_kind_is_named(tmp_path):
    for name, message in (("none.csv", r"none\.csv"), ("groups.xlsx", r"\.csv or \.parquet")):
        with pytest.raises(LabelError, match=message):
            read_groups(tmp_path / name, VIDEOS, PEOPLE)


def test_groups_are_read_and_found_as_labels_are(tmp_path):
    (tmp_path / "g.csv").write_bytes("video_id;gender\r\nA\\X.MP4;f\r\n;\r\nz;m\r\n".encode("utf-16"))
    assert list(read_groups(tmp_path / "g.csv", VIDEOS, PEOPLE)["gender"]) == ["f", "(not given)", "m"]
