"""Bundles: the same bytes each time, checkable with common tools, and harmless whoever made them."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from extractors.assets.bundle import unpack_bundle, write_bundle
from extractors.assets.files import Asset, AssetError, AssetFile, digest_of

CONTENT = {
    "net": {"weights.bin": np.random.default_rng(0).bytes(1_500_000), "index": b"a few words"},
    "finder": {"model.tflite": b"a model"},
}


def ignore(file, done):
    pass


def asset_of(name: str, contents: dict[str, bytes]) -> Asset:
    files = tuple(
        AssetFile(file, f"md5:{hashlib.md5(content).hexdigest()}", len(content)) for file, content in contents.items()
    )
    return Asset(name, f"The {name}", "1", "tests", "Free", "Do what you like.\n", files)


ASSETS = {name: asset_of(name, contents) for name, contents in CONTENT.items()}


@pytest.fixture
def sources(tmp_path):
    """Folders with the assets' files, as `write_bundle` wants them."""
    for name, contents in CONTENT.items():
        (tmp_path / "sources" / name).mkdir(parents=True)
        for file, content in contents.items():
            (tmp_path / "sources" / name / file).write_bytes(content)
    return {name: (asset, tmp_path / "sources" / name) for name, asset in ASSETS.items()}


@pytest.fixture
def goal(tmp_path):
    """An empty folder to unpack into, in one that shows whatever goes astray."""
    folder = tmp_path / "area" / "goal"
    folder.mkdir(parents=True)
    return folder


def members_of(**changes) -> list[tuple[tarfile.TarInfo, bytes]]:
    """What an honest bundle has, made here by hand; SHA256SUMS is right for whatever is in it."""
    contents = {f"{name}/{file}": content for name, files in CONTENT.items() for file, content in files.items()}
    contents |= {f"{name}/LICENCE.txt": b"Do what you like.\n" for name in CONTENT}
    contents |= changes
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items())
    return [member(name, content) for name, content in {"SHA256SUMS": sums.encode(), **contents}.items()]


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **more) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, len(content)
    for key, value in more.items():
        setattr(header, key, value)
    return header, content


def archive(path, members, form=tarfile.USTAR_FORMAT):
    with tarfile.open(path, "w", format=form) as tar:
        for header, content in members:
            tar.addfile(header, io.BytesIO(content))
    return path


def contents_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(bundle, goal, message):
    """Refused in one line, with nothing written anywhere."""
    before = contents_of(goal.parent)
    with pytest.raises(AssetError, match=message) as caught:
        unpack_bundle(bundle, ASSETS, goal, ignore)
    assert "nothing of it was unpacked" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents_of(goal.parent) == before
    assert list(goal.iterdir()) == []


def test_what_was_bundled_is_unpacked_byte_for_byte(sources, goal, tmp_path):
    write_bundle(sources, tmp_path / "bundle.tar", ignore)
    assert unpack_bundle(tmp_path / "bundle.tar", ASSETS, goal, ignore) == list(ASSETS.values())
    expected = {f"{name}/{file}": content for name, files in CONTENT.items() for file, content in files.items()}
    expected |= {f"{name}/LICENCE.txt": b"Do what you like.\n" for name in CONTENT}
    assert contents_of(goal) == expected


def test_the_same_assets_give_the_same_bytes(sources, tmp_path):
    write_bundle(sources, tmp_path / "one.tar", ignore)
    for _, folder in sources.values():
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes())  # another time of writing
            path.chmod(0o600)
    write_bundle(dict(reversed(sources.items())), tmp_path / "two.tar", ignore)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_tar_and_sha256sum_can_do_without_us(sources, goal, tmp_path):
    write_bundle(sources, tmp_path / "bundle.tar", ignore)
    subprocess.run(["tar", "xf", str(tmp_path / "bundle.tar")], cwd=goal, check=True)
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    shown = subprocess.run(check, cwd=goal, check=True, capture_output=True, text=True)
    assert shown.stdout.count(": OK\n") == 5
    with tarfile.open(tmp_path / "bundle.tar") as tar:
        assert tar.getnames()[0] == "SHA256SUMS"


def test_a_bundle_of_some_assets_brings_just_those(sources, goal, tmp_path):
    write_bundle({"finder": sources["finder"]}, tmp_path / "bundle.tar", ignore)
    assert unpack_bundle(tmp_path / "bundle.tar", ASSETS, goal, ignore) == [ASSETS["finder"]]
    assert [path.name for path in goal.iterdir()] == ["finder"]


def test_unpacking_mends_a_damaged_file_and_leaves_strange_ones_alone(sources, goal, tmp_path):
    write_bundle(sources, tmp_path / "bundle.tar", ignore)
    (goal / "finder").mkdir()
    (goal / "finder" / "model.tflite").write_bytes(b"damaged")
    (goal / "finder" / "notes.txt").write_bytes(b"mine")
    unpack_bundle(tmp_path / "bundle.tar", ASSETS, goal, ignore)
    assert (goal / "finder" / "model.tflite").read_bytes() == b"a model"
    assert (goal / "finder" / "notes.txt").read_bytes() == b"mine"


def test_the_bundle_made_by_hand_is_accepted_so_that_its_changes_are_what_is_refused(goal, tmp_path):
    unpack_bundle(archive(tmp_path / "bundle.tar", members_of()), ASSETS, goal, ignore)
    assert len(contents_of(goal)) == 5


@pytest.mark.parametrize(
    "name",
    ["../evil", "net/../../evil", "/tmp/evil", "net/../finder/model.tflite", "./net/index", "net//index", "evil"],
)
def test_a_name_that_is_no_asset_file_is_refused_wherever_it_points(goal, tmp_path, name):
    bundle = archive(tmp_path / "bundle.tar", [*members_of(), member(name, b"evil")])
    assert_refused(bundle, goal, "is not a file of an asset")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, ".."),
        (tarfile.LNKTYPE, "SHA256SUMS"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.DIRTYPE, ""),
        (tarfile.CONTTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
    ],
)
@pytest.mark.parametrize("name", ["net", "net/index", "net/weights.bin"])
def test_links_devices_and_sparse_files_are_refused(goal, tmp_path, kind, target, name):
    header, _ = member(name, b"", kind, linkname=target)
    bundle = archive(tmp_path / "bundle.tar", [*members_of()[:1], (header, b""), *members_of()[1:]])
    assert_refused(bundle, goal, "is not a regular file")


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_that_could_claim_any_length_are_refused_unread(goal, tmp_path, form):
    """A long name goes into a header of its own, whose size is the archive's to say."""
    bundle = archive(tmp_path / "bundle.tar", [*members_of(), member("n" * 5000)], form)
    assert_refused(bundle, goal, "extended tar headers")


def test_a_sparse_file_by_extended_header_is_refused(goal, tmp_path):
    header, _ = member("net/index", b"")
    header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
    bundle = archive(tmp_path / "bundle.tar", [*members_of()[:1], (header, b"")], tarfile.PAX_FORMAT)
    assert_refused(bundle, goal, "extended tar headers")


@pytest.mark.parametrize("name", ["net/index", "net/LICENCE.txt", "SHA256SUMS"])
@pytest.mark.parametrize("size", [1 << 30, 1 << 62])
def test_a_member_that_says_it_is_too_large_is_refused_before_a_byte_is_written(goal, tmp_path, name, size):
    """The size is only claimed: no such bytes follow, or a hole in the archive's file follows."""
    header = tarfile.TarInfo(name)
    header.size = size
    members = [] if name == "SHA256SUMS" else members_of()[:1]
    bundle = archive(tmp_path / "bundle.tar", members)
    with bundle.open("r+b") as stream:
        stream.seek(1024 * len(members))
        stream.write(header.tobuf(tarfile.GNU_FORMAT))
        if size == 1 << 30:
            stream.truncate(size + 4096)
    assert_refused(bundle, goal, "bytes, (not the published|more than the 65,536)")


def test_a_negative_size_is_refused(goal, tmp_path):
    header = tarfile.TarInfo("SHA256SUMS")
    raw = bytearray(header.tobuf())
    raw[124:136] = b"\xff" * 12  # -1 in base 256
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    (tmp_path / "bundle.tar").write_bytes(bytes(raw) + bytes(1024))
    assert_refused(tmp_path / "bundle.tar", goal, "-1 bytes")


def test_a_member_of_another_size_is_refused_even_where_its_sum_is_right(goal, tmp_path):
    members = members_of(**{"net/index": b"a few words more"})
    assert_refused(archive(tmp_path / "bundle.tar", members), goal, "16 bytes, not the published 11")


def test_other_bytes_of_the_right_size_are_refused_with_both_digests_even_where_their_sum_is_right(goal, tmp_path):
    """Whoever can change a file can change SHA256SUMS: what counts is the published digest."""
    changed = CONTENT["net"]["weights.bin"][:-1] + b"!"
    bundle = archive(tmp_path / "bundle.tar", members_of(**{"net/weights.bin": changed}))
    digests = [hashlib.md5(content).hexdigest() for content in (changed, CONTENT["net"]["weights.bin"])]
    assert_refused(bundle, goal, f"has digest md5:{digests[0]}, not md5:{digests[1]}")


def test_a_licence_that_is_not_the_listed_one_is_refused(goal, tmp_path):
    members = members_of()
    other = [(header, b"Pay me a lot now!\n") if header.name == "net/LICENCE.txt" else (header, content)
             for header, content in members]  # fmt: skip
    assert_refused(archive(tmp_path / "bundle.tar", other), goal, "has digest sha256:")


def test_no_flipped_bit_and_no_cut_goes_unnoticed(sources, goal, tmp_path):
    """Each either is refused or changes nothing that is unpacked (padding, or a header's time)."""
    path = tmp_path / "bundle.tar"
    write_bundle({"finder": sources["finder"]}, path, ignore)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for place in generator.integers(0, 8 * 3072, 150):  # up to the end of the last file
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            unpack_bundle(path, ASSETS, goal, ignore)
            assert (goal / "finder" / "model.tflite").read_bytes() == b"a model"
        except AssetError:
            refused += 1
    assert refused > 50
    for length in (0, 100, 512, 700, 2048, 3000, 3072):
        path.write_bytes(whole[:length])
        with pytest.raises(AssetError, match="nothing of it was unpacked"):
            unpack_bundle(path, ASSETS, goal, ignore)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: [*members, members[2]], "twice"),
        (lambda members: [*members, members[0]], "SHA256SUMS .*once"),
        (lambda members: members[1:], "SHA256SUMS .*once"),
        (lambda members: members[:1], "no asset"),
        (lambda members: [], "no asset"),
        (lambda members: [m for m in members if m[0].name != "net/index"], "it lacks net/index"),
        (lambda members: [member("SHA256SUMS", b"\xff\0 no sums"), *members[1:]], "lists other files"),
    ],
)
def test_members_twice_or_missing_are_refused(goal, tmp_path, change, message):
    assert_refused(archive(tmp_path / "bundle.tar", change(members_of())), goal, message)


def test_too_many_members_end_the_reading_at_the_first_that_is_too_much(goal, tmp_path):
    many = [member(f"net/{number}") for number in range(10_000)]
    assert_refused(archive(tmp_path / "bundle.tar", [*members_of(), *many]), goal, "'net/0' is not a file")


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_archive_is_refused(goal, tmp_path, content):
    (tmp_path / "bundle.tar").write_bytes(content)
    assert_refused(tmp_path / "bundle.tar", goal, "is not a bundle")


def test_a_link_in_the_goal_under_a_files_name_is_replaced_and_not_followed(sources, goal, tmp_path):
    write_bundle(sources, tmp_path / "bundle.tar", ignore)
    (goal / "finder").mkdir()
    victim = goal.parent / "victim"
    victim.write_bytes(b"mine")
    (goal / "finder" / "model.tflite").symlink_to(victim)
    unpack_bundle(tmp_path / "bundle.tar", ASSETS, goal, ignore)
    assert victim.read_bytes() == b"mine"
    assert (goal / "finder" / "model.tflite").read_bytes() == b"a model"


def test_a_disk_that_is_full_leaves_nothing_half_written(sources, goal, tmp_path):
    """A limit on the size of files stands for the disk; it ends the copy in the midst of the larger file."""
    write_bundle(sources, tmp_path / "bundle.tar", ignore)
    program = (
        "import resource, signal, sys, pathlib\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "from extractors.assets.bundle import unpack_bundle\n"
        "from extractors.assets.files import Asset, AssetFile\n"
        f"assets = {ASSETS!r}\n"
        f"unpack_bundle(pathlib.Path({str(tmp_path / 'bundle.tar')!r}), assets, pathlib.Path({str(goal)!r}), print)\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "AssetError: cannot unpack" in shown.stderr
    assert "File too large" in shown.stderr
    assert list(goal.iterdir()) == []


def test_an_asset_that_this_version_expects_otherwise_is_refused(sources, goal, tmp_path):
    write_bundle(sources, tmp_path / "bundle.tar", ignore)
    newer = {**ASSETS, "finder": replace(ASSETS["finder"], files=(AssetFile("model.tflite", "md5:0", 8),))}
    with pytest.raises(AssetError, match="7 bytes, not the published 8"):
        unpack_bundle(tmp_path / "bundle.tar", newer, goal, ignore)


def test_sums_are_those_of_the_files(sources, tmp_path):
    write_bundle(sources, tmp_path / "bundle.tar", ignore)
    with tarfile.open(tmp_path / "bundle.tar") as tar:
        lines = tar.extractfile("SHA256SUMS").read().decode().splitlines()
    digest = digest_of(tmp_path / "sources" / "net" / "index", "sha256").removeprefix("sha256:")
    assert f"{digest}  net/index" in lines
