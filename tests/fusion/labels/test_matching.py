"""Labels find their videos."""

import dataclasses
import time

import numpy as np
import pytest
from trait_csv import write_trait_csv

from fusion.labels.matching import match_labels
from fusion.labels.read import Labels, read_labels
from fusion.traits import TRAITS
from storage import Score


def labels_of(*names):
    values = np.tile(np.arange(len(names), dtype=np.float32)[:, None] / 10, (1, 5))
    return Labels(names, values, tuple(f"person {name}" for name in names), True, False)


@pytest.mark.parametrize(
    ("label_names", "video_ids", "matched"),
    [
        (["a/x.mp4"], ["a/x.mp4"], {"a/x.mp4": "a/x.mp4"}),
        (["x.mp4"], ["deep/er/x.mp4"], {"deep/er/x.mp4": "x.mp4"}),
        (["train/x.mp4"], ["x.mp4"], {"x.mp4": "train/x.mp4"}),
        (["-AmMDnVl4s8.003"], ["-AmMDnVl4s8.003.mp4"], {"-AmMDnVl4s8.003.mp4": "-AmMDnVl4s8.003"}),
        (["x.mp4"], ["a/x.mkv"], {"a/x.mkv": "x.mp4"}),
        (["v.003", "v.004"], ["v.003.mp4", "v.004.mp4"], {"v.003.mp4": "v.003", "v.004.mp4": "v.004"}),
        # the number of a clip is no ending
        (["v.003"], ["v.mp4"], {}),
        # a whole id is taken before a loose one
        (["x.mp4", "a/x.mp4"], ["a/x.mp4"], {"a/x.mp4": "a/x.mp4"}),
        # neither of two videos of one name
        (["x.mp4"], ["a/x.mp4", "b/x.mp4"], {}),
        # nor one of two labels
        (["a/x.mp4", "b/x.mp4"], ["x.mp4"], {}),
        # the label of x.mp4 is not given to its namesake as well
        (["x.mp4"], ["x.mp4", "old/x.mp4"], {"x.mp4": "x.mp4"}),
        (["x.mp4", "new/x.mp4"], ["x.mp4", "old/x.mp4"], {"x.mp4": "x.mp4"}),
        (["x"], ["x.mp4", "x.avi"], {}),
        (["y.mp4"], ["x.mp4"], {}),
        # letters in another normal form, as file systems of Apple's have them; but of two such twins each has its own
        (["Zo\u00eb.mp4"], ["a/Zoe\u0308.mp4"], {"a/Zoe\u0308.mp4": "Zo\u00eb.mp4"}),
        (["Zo\u00eb.mp4"], ["Zoe\u0308.mp4", "Zo\u00eb.mp4"], {"Zo\u00eb.mp4": "Zo\u00eb.mp4"}),
        (
            ["Zo\u00eb.mp4", "Zoe\u0308.mp4"],
            ["Zoe\u0308.mp4", "Zo\u00eb.mp4"],
            {"Zoe\u0308.mp4": "Zoe\u0308.mp4", "Zo\u00eb.mp4": "Zo\u00eb.mp4"},
        ),
        # paths as Windows has them, and as others have them whose folders lie elsewhere
        (["sub\\clip.mp4"], ["sub/clip.mp4"], {"sub/clip.mp4": "sub\\clip.mp4"}),
        (
            ["D:\\all\\a\\x.mp4", "D:\\all\\b\\x.mp4"],
            ["a/x.mp4", "b/x.mp4"],
            {"a/x.mp4": "D:\\all\\a\\x.mp4", "b/x.mp4": "D:\\all\\b\\x.mp4"},
        ),
        (["a/x"], ["deep/a/x.mp4", "deep/b/x.mp4"], {"deep/a/x.mp4": "a/x"}),
        (["./a/x.mp4"], ["a/x.mp4", "b/x.mp4"], {"a/x.mp4": "./a/x.mp4"}),
        (["back/slash.mp4"], ["back\\slash.mp4", "back/slash.mp4"], {"back/slash.mp4": "back/slash.mp4"}),
        # another case, but not of twins that differ in nothing else
        (["SUB\\Clip.MP4"], ["sub/clip.mp4"], {"sub/clip.mp4": "SUB\\Clip.MP4"}),
        (["Clip"], ["CLIP.mov"], {"CLIP.mov": "Clip"}),
        (["X.mp4"], ["a/x.mp4", "b/x.MP4"], {}),
        (["X.mp4", "x.mp4"], ["x.mp4", "X.mp4"], {"x.mp4": "x.mp4", "X.mp4": "X.mp4"}),
        (["ZOE\u0308.mp4"], ["zo\u00eb.mp4"], {"zo\u00eb.mp4": "ZOE\u0308.mp4"}),
        # a name from the trait CSV
        (["'=x.mp4", "''y.mp4"], ["=x.mp4", "'y.mp4"], {"=x.mp4": "'=x.mp4", "'y.mp4": "''y.mp4"}),
        (["'-AmM.mp4"], ["-AmM.mp4"], {"-AmM.mp4": "'-AmM.mp4"}),
        (["a;'=x.mp4"], ["a;=x.mp4"], {"a;=x.mp4": "a;'=x.mp4"}),
        # a title is no ending
        (["Dr.Smith"], ["Dr.Smith.mp4"], {"Dr.Smith.mp4": "Dr.Smith"}),
        # spaces that somebody typed, and those that belong to a name
        (["x.mp4 "], ["x.mp4"], {"x.mp4": "x.mp4 "}),
        ([" x.mp4", "x.mp4"], ["x.mp4", " x.mp4"], {"x.mp4": "x.mp4", " x.mp4": " x.mp4"}),
    ],
)
def test_a_label_goes_to_the_one_video_that_it_can_mean(label_names, video_ids, matched):
    labels = labels_of(*label_names)
    found = match_labels(labels, video_ids)
    assert dict(zip(found.video_ids, found.subjects, strict=True)) == {
        video: f"person {name}" for video, name in matched.items()
    }
    assert found.values[:, 0] == pytest.approx([label_names.index(name) / 10 for name in matched.values()])
    assert set(found.unlabelled + found.ambiguous) == {video for video in video_ids if video not in matched}
    assert found.unused == tuple(name for name in label_names if name not in matched.values())


def test_matched_videos_keep_their_order():
    found = match_labels(labels_of("c.mp4", "a.mp4", "b.mp4"), ["a.mp4", "b.mp4", "x.mp4", "c.mp4"])
    assert found.video_ids == ("a.mp4", "b.mp4", "c.mp4")
    assert found.values[:, 2] == pytest.approx([0.1, 0.2, 0.0])


def test_what_went_nowhere_is_named_by_why():
    found = match_labels(labels_of("x.mp4", "y.mp4", "z.mp4"), ["a/x.mp4", "b/x.mp4", "z.mp4", "new.mp4"])
    assert found.video_ids == ("z.mp4",)
    assert found.ambiguous == ("a/x.mp4", "b/x.mp4")
    assert found.unlabelled == ("new.mp4",)
    assert found.unused == ("x.mp4", "y.mp4")


def test_the_part_of_the_split_comes_from_the_labels_and_else_from_the_folders():
    videos = ["train/train-1/a.mp4", "Validation/b.mp4", "valerie/c.mp4", "test80_01/d.mp4"]
    names = [name.rpartition("/")[2] for name in videos]
    assert match_labels(labels_of(*names), videos).parts == ("training", "validation", None, "test")
    said = dataclasses.replace(labels_of(*names), parts=("test",) * 4)
    assert match_labels(said, videos).parts == ("test",) * 4


def test_ids_of_our_own_csv_find_their_videos(tmp_path):
    """Every name that the trait CSV has to write in another way, read again as a label file."""
    ids = sorted(["=1.mp4", "+1.mp4", "-1.mp4", "-(1).mp4", "@x.mp4", "'q'.mp4", "a;=1.mp4", "a, -1.mp4", "plain.mp4"])
    scores = [Score(name, "0" * 64, (0.5,) * 5, 0.9, 1, 1, "s", "d", "random") for name in ids]
    write_trait_csv(tmp_path / "t.csv", scores, trait_names=TRAITS, model="main/1")
    assert match_labels(read_labels(tmp_path / "t.csv"), ids).video_ids == tuple(ids)


@pytest.mark.parametrize("name", ["clip {row:05d}", "clip"], ids=["own names", "one name"])
def test_large_archives_are_matched_in_seconds(name):
    names = tuple(f"D:\\Person {row:05d}\\{name.format(row=row)}.MP4" for row in range(20_000))
    labels = Labels(names, np.zeros((len(names), 5), np.float32), names, True, False)
    videos = [f"person {row:05d}/{name.format(row=row)}.mp4" for row in range(20_000)]
    started = time.process_time()
    found = match_labels(labels, videos)
    assert found.video_ids == tuple(videos)
    assert found.subjects == names
    assert time.process_time() - started < 60  # two seconds; to compare each with each takes minutes
