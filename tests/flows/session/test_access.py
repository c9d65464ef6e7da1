"""What commands write is closed to other accounts, unless the store is shared with a group."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from stranger import as_stranger, needs_root, public_folder, readable_by_stranger

from flows.config.load import keep_settings, load_config
from flows.session.errors import UserError

GROUP = 54321  # any that exists nowhere

LIST = """
for path in sys.argv[1:]:
    try:
        os.listdir(path)
    except PermissionError:
        continue
    print(path)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    """The umask of most accounts, with which files are readable by all."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(paths: list[Path]) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in paths}


def files_and_folders(*places: Path) -> tuple[list[Path], list[Path]]:
    found = [path for place in places for path in (place, *place.rglob("*"))]
    return [path for path in found if path.is_file()], [path for path in found if path.is_dir()]


@pytest.fixture
def clips(short_clips, public) -> Path:
    (public / "clips").mkdir()
    shutil.copy(short_clips.videos / "still.mp4", public / "clips")
    return public / "clips"


@pytest.fixture
def settings(small_networks) -> list[str]:
    return ["--weights", "random", *(part for setting in small_networks for part in ("--set", setting))]


@needs_root
def test_another_account_can_read_no_store_log_or_score(traitline, clips, public, settings):
    store = public / "archive" / "store"
    done = traitline("extract", "--videos", clips, "--store", store, *settings, folder=public)
    assert done.returncode == 0, done.stderr
    files, folders = files_and_folders(public / "archive")
    assert {path.relative_to(store).parts[0] for path in files} >= {"features", "runs", "seen"}
    assert any(path.suffix == ".log" for path in files)
    assert modes(files) == {0o600}
    assert modes(folders) == {0o700}
    assert readable_by_stranger(files) == []
    assert as_stranger(LIST, *folders) == ""


@needs_root
def test_another_account_can_read_no_report_or_export(traitline, report_store, public):
    store = shutil.copytree(report_store.config.store.path, public / "store")
    before = {path for path in store.rglob("*") if path.is_file()}
    for command in (["report"], ["export", "--out", public / "traits.csv"]):
        done = traitline(*command, "--store", store, "--weights", "random", folder=public)
        assert done.returncode == 0, done.stderr
    written = [path for path in store.rglob("*") if path.is_file() and path not in before]
    assert {path.suffix for path in written} >= {".html", ".log", ".yaml"}
    written += [path for path in public.glob("traits*")]
    assert modes(written) == {0o600}
    assert readable_by_stranger(written) == []


@needs_root
def test_a_store_for_a_group_is_open_to_its_members_only(traitline, clips, public, settings):
    team = public / "team"
    team.mkdir()
    os.chown(team, -1, GROUP)
    team.chmod(0o2775)
    store, shared = team / "store", ["--set", "store.access=group"]
    done = traitline("extract", "--videos", clips, "--store", store, *settings, *shared, folder=public)
    assert done.returncode == 0, done.stderr
    files, folders = files_and_folders(store)
    assert modes(files) == {0o660}
    assert modes(folders) == {0o2770}
    assert {path.stat().st_gid for path in (*files, *folders)} == {GROUP}
    assert readable_by_stranger(files) == []
    assert readable_by_stranger(files, groups=(GROUP,)) == [str(path) for path in files]
    before = set(files)
    # Other commands need no setting: the store's folder says it.
    done = traitline("failures", "retry", "--store", store, "--videos", clips, *settings, folder=public)
    assert done.returncode == 0, done.stderr
    files, _ = files_and_folders(store)
    assert set(files) > before
    assert modes(files) == {0o660}


def test_a_private_store_does_not_become_shared_by_a_setting(tmp_path):
    (tmp_path / "store").mkdir()
    config = load_config(flags={"store.path": tmp_path / "store", "store.access": "group"})
    with pytest.raises(UserError, match=r"chmod -R g\+rwX") as raised:
        keep_settings(config, "extract")
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "store").iterdir()) == []


def test_the_cure_that_is_named_cures(tmp_path):
    store = tmp_path / "store"
    keep_settings(load_config(flags={"store.path": store}), "extract")
    files, folders = files_and_folders(store)
    assert (modes(files), modes(folders)) == ({0o600}, {0o700})
    os.system(f"chmod -R g+rwX {store} && find {store} -type d -exec chmod g+s {{}} +")
    keep_settings(load_config(flags={"store.path": store, "store.access": "group"}), "extract")
    files, folders = files_and_folders(store)
    assert (modes(files), modes(folders)) == ({0o660}, {0o2770})


def test_assets_are_for_all(traitline, tmp_path):
    folder = tmp_path / "assets"
    done = traitline("assets", "bundle", tmp_path / "assets.tar", "face_detector", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = traitline("assets", "unpack", tmp_path / "assets.tar", "--folder", folder, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    files, folders = files_and_folders(folder)
    assert modes([*files, tmp_path / "assets.tar"]) == {0o644}
    assert modes(folders) == {0o755}
