"""Names of videos that programs stumble over, from the folder to the CSV and back: none lost, doubled, led astray."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Annotated

import duckdb
import numpy as np
import pytest
import typer
from trait_csv import read_trait_csv, write_trait_csv
from typer.testing import CliRunner

from flows.archive.videos import scan_videos
from flows.cli.app import app as cli_app
from flows.cli.options import CONFIG, CommandOnFiles
from flows.config.settings import RunConfig, StoreSettings
from flows.session.errors import UserError
from flows.visualize.model import video_file
from fusion.traits import TRAITS
from storage import Failure, FailureLog, Family, FeatureStore, Score, ScoreStore, Unscored, VideoFeatures
from storage.exports.csv import GUARD, GUARD_REPLACEMENT

TWINS = [unicodedata.normalize(form, "Zoë.mp4") for form in ("NFC", "NFD")]
NAMES = [
    "-rf.mp4",
    "--help.mp4",
    "a b  c.mp4",
    " begins with a space.mp4",
    "line\nbreak.mp4",
    "carriage\rreturn.mp4",
    "\ttab.mp4",
    "=1+1.mp4",
    "+1.mp4",
    "@SUM(A1).mp4",
    "'quoted'.mp4",
    '"quoted".mp4',
    "a,b;c|d.mp4",
    "back\\slash.mp4",
    "a..mp4",
    "dots../x.mp4",
    "one/stem.mp4",
    "two/stem.mp4",
    "two/stem.mkv",
    "two/STEM.mp4",
    "%2e%2e%2fescape.mp4",
    "$(touch canary).mp4",
    "`touch canary`.mp4",
    "[red]rich[/red].mp4",
    "<script>alert(1)<script>.mp4",
    "\x1b[31mterminal.mp4",
    "\u202egpj.mp4",
    "\U0001f600.mp4",
    "n" * 251 + ".mp4",
    "é" * 125 + "x.mp4",
    *TWINS,
]
FAMILY = Family("static", 3, {"any": 1}, quality=())


@pytest.fixture
def folder(tmp_path) -> Path:
    """A video of each name, with bytes of its own, one name that is no UTF-8, and a link to a video elsewhere."""
    folder = tmp_path / "videos"
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    with open(os.fsencode(folder) + b"/caf\xe9.mp4", "wb") as file:
        file.write(b"latin")
    (tmp_path / "elsewhere.mp4").write_bytes(b"elsewhere")
    (folder / "link.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    return folder


WANTED = sorted([*NAMES, "caf\\xe9.mp4", "link.mp4"])


def test_names_stay_apart_and_whole_from_the_folder_to_the_csv_and_back(folder, tmp_path):
    videos = scan_videos(folder, tmp_path / "digests.parquet")
    assert [video.video_id for video in videos] == WANTED
    assert len(set(TWINS)) == 2
    contents = {"caf\\xe9.mp4": b"latin", "link.mp4": b"elsewhere"}
    for video in videos:
        content = contents.get(video.video_id, video.video_id.encode())
        assert video.sha256 == hashlib.sha256(content).hexdigest()
        assert video.path.read_bytes() == content
    again = scan_videos(folder, tmp_path / "digests.parquet")
    assert list(again) == list(videos)

    root, truth = tmp_path / "store", {}
    for format in ("parquet", "hdf5"):
        chosen = list(videos)[format == "hdf5" :: 2]
        rows = []
        for number, video in enumerate(chosen):
            vectors = np.full((1, 3), number, np.float32)
            rows.append(VideoFeatures(video.video_id, video.sha256, vectors, np.zeros(1), np.ones(1), {}))
            truth[video.video_id] = float(number)
        FeatureStore(root, format).write(FAMILY, rows)
    found = {row.video_id: float(row.vectors[0, 0]) for row in FeatureStore(root).read(FAMILY, WANTED)}
    assert found == truth

    digests = {video.video_id: video.sha256 for video in videos}
    scores = [Score(name, digests[name], (0.5,) * 5, 0.9, 1, 1, "s", "d", "random") for name in WANTED[::2]]
    failures = [Failure(name, digests[name], "k", "faces", "no_face", f"in {name}", 1) for name in WANTED[1::2]]
    ScoreStore(root).write("main", "1", scores)
    FailureLog(root).add(failures)
    rows = list(ScoreStore(root).read("main", "1"))
    rows += [Unscored(row.video_id, row.video_sha256, row.reason, row.key) for row in FailureLog(root).current()]
    rows.sort(key=lambda row: row.video_id)
    assert [row.video_id for row in rows] == WANTED
    path = tmp_path / "traits.csv"
    write_trait_csv(path, rows, trait_names=TRAITS, model="main/1")
    assert list(read_trait_csv(path, trait_names=TRAITS)) == rows
    with path.open(encoding="utf-8", newline="") as file:
        cells = [row[0] for row in csv.reader(file, strict=True)][1:]
    starts = ("=", "+", "-", "@", "\t", "\r")
    assert [cell for cell in cells if cell.startswith(starts)] == ["--help.mp4", "-rf.mp4"]  # names, and no formulas
    assert [re.sub(GUARD, GUARD_REPLACEMENT, cell) for cell in cells] == WANTED
    query = f"SELECT video_id FROM read_csv('{path}', header=true, quote='\"', escape='\"', all_varchar=true)"
    assert sorted(row[0] for row in duckdb.sql(query).fetchall()) == sorted(cells)
    # whatever the names say, files lie only where the store puts them
    places = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert places == {"videos", "store", "digests.parquet", "elsewhere.mp4", "traits.csv"}
    assert not [path for path in root.rglob("*") if "canary" in path.name or "stem" in path.name]


def test_two_files_of_one_id_are_refused_by_name(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "caf\\xe9.mp4").touch()
    with open(os.fsencode(tmp_path / "videos") + b"/caf\xe9.mp4", "wb"):
        pass
    with pytest.raises(UserError, match=r"caf.*xe9\.mp4"):
        scan_videos(tmp_path / "videos", tmp_path / "digests.parquet")


def test_links_that_lead_nowhere_or_round_are_listed_and_pipes_and_folders_are_not_opened(tmp_path):
    folder = tmp_path / "videos"
    (folder / "folder.mp4").mkdir(parents=True)
    (folder / "good.mp4").write_bytes(b"good")
    (folder / "nowhere.mp4").symlink_to(tmp_path / "gone.mp4")
    (folder / "round.mp4").symlink_to(folder / "round.mp4")
    (folder / "endless.mp4").symlink_to("/dev/zero")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.mp4")
    found = {video.video_id: video.sha256 for video in scan_videos(folder, tmp_path / "digests.parquet")}
    assert found == {"good.mp4": hashlib.sha256(b"good").hexdigest(), "nowhere.mp4": "", "round.mp4": ""}


@pytest.mark.parametrize("video_id", ["../secret.mp4", "a/../../secret.mp4", "{folder}/secret.mp4"])
def test_an_id_in_a_store_leads_nobody_out_of_the_videos_folder(tmp_path, video_id):
    (tmp_path / "videos" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "a" / "..b.mp4").touch()
    (tmp_path / "secret.mp4").touch()
    config = RunConfig(videos=tmp_path / "videos", store=StoreSettings(path=tmp_path / "store"))
    assert video_file(config, "a/..b.mp4").is_file()
    with pytest.raises(UserError, match=r"secret\.mp4"):
        video_file(config, video_id.format(folder=tmp_path))


def test_failures_of_awkward_names_are_listed_in_a_line_each(tmp_path, traitline):
    names = ["line\nbreak.mp4", "\x1b[31mterminal.mp4", "[red]rich[/red].mp4", ":smile:.mp4"]
    FailureLog(tmp_path).add([Failure(name, "0" * 64, "k", "faces", "no_face", f"in {name}", 1) for name in names])
    result = traitline("failures", "list", "--store", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    for shown in ("line\\nbreak.mp4", "\\x1b[31mterminal.mp4", "[red]rich[/red].mp4", ":smile:.mp4"):
        assert len([line for line in result.stdout.splitlines() if shown in line]) == 1, shown


@pytest.mark.parametrize("name", ["-rf.mp4", "--help.mp4", "-cAmMDnVl4s8.003.mp4", "--Ymqszjv54.003.mp4", "-a=b.mp4"])
@pytest.mark.parametrize("order", ["{name} {options}", "{options} {name}", "{options} -- {name}"])
def test_a_name_with_a_dash_in_front_is_no_option_wherever_it_stands(name, order):
    given = {}

    def attention(video: Annotated[str, typer.Argument()], out: Annotated[str, typer.Option()], config: CONFIG = None):
        given.update(video=video, out=out, config=config)

    app = typer.Typer()
    app.command(cls=CommandOnFiles)(attention)
    words = order.format(name=name, options="--out -a.png -c run.yaml").split()
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert given == {"video": name, "out": "-a.png", "config": Path("run.yaml")}


@pytest.mark.parametrize(
    "command", ["attention", "heads", "relations", "timeline", "grad-cam", "layers", "cam", "volume"]
)
def test_every_command_that_draws_a_video_takes_a_name_with_a_dash_in_front(command, tmp_path):
    trait = ["--trait", "openness"] if command in ("timeline", "grad-cam") else []
    words = ["visualize", command, "-rf.mp4", *trait, "--out", str(tmp_path / "a.png"), "--store", str(tmp_path / "no")]
    result = CliRunner().invoke(cli_app, words)
    assert result.exit_code == 1, result.output  # there is neither such a store nor such a file
    assert "No such option" not in result.output


def test_a_mistyped_option_is_still_refused(tmp_path):
    words = ["visualize", "attention", "-rf.mp4", "--uot", "a.png"]
    result = CliRunner().invoke(cli_app, words)
    assert result.exit_code == 2
    assert "No such option: --uot" in result.output


def test_a_mistake_with_a_line_break_in_it_stays_one_line(tmp_path, traitline):
    result = traitline("run", "--videos", tmp_path / "no\nsuch", "--store", tmp_path / "s", "--weights", "random")
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "no\\nsuch" in result.stderr


@pytest.mark.slow
def test_a_whole_run_scores_every_awkward_name_or_gives_its_reason(rendered, tmp_path, traitline):
    folder, clips = tmp_path / "videos", sorted(rendered.videos.glob("*.mp4"))
    shutil.copytree(rendered.videos, folder)
    awkward = ["-rf.mp4", "line\nbreak.mp4", "=1+1.mp4", "one/stem.mp4", "two/stem.mp4", *TWINS, "n" * 251 + ".mp4"]
    for name in awkward:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(clips[0], folder / name)
    shutil.copy(clips[0], os.fsencode(folder) + b"/caf\xe9.mp4")
    (folder / "link.mp4").symlink_to(clips[0])
    os.symlink(os.fsencode(tmp_path / "gone.mp4"), os.fsencode(folder) + b"/nowh\xe8re.mp4")
    out = tmp_path / "traits.csv"
    result = traitline(
        "run", "--videos", folder, "--labels", rendered.labels, "--store", tmp_path / "store", "--weights", "random",
        "--set", "train.epochs=1", "--out", out,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = {row.video_id: row for row in read_trait_csv(out, trait_names=TRAITS)}
    scored = [*awkward, "caf\\xe9.mp4", "link.mp4"]
    assert sorted(rows) == sorted([clip.name for clip in clips] + scored + ["nowh\\xe8re.mp4"])
    assert all(isinstance(rows[name], Score) for name in scored)
    assert len({rows[name].traits for name in scored}) == 1  # the same bytes
    assert isinstance(rows["nowh\\xe8re.mp4"], Unscored)
    assert rows["nowh\\xe8re.mp4"].reason == "unreadable"
    # and commands that are told one of them find it
    of_store = ("--store", tmp_path / "store", "--weights", "random")
    page = traitline("report", *of_store, "--clips", "-rf.mp4", "--clips", "line\nbreak.mp4")
    assert page.returncode == 0, page.stderr
    picture = tmp_path / "attention.png"
    drawn = traitline("visualize", "attention", "-rf.mp4", *of_store, "--out", picture)
    assert drawn.returncode == 0, drawn.stderr
    assert picture.stat().st_size > 1000
