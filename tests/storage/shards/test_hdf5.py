"""HDF5 shards: what lies in the file, and files that would lead a reader elsewhere."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from storage import Family, FeatureStore, StoreError
from storage.shards.formats import check_shard
from storage.shards.hdf5 import Hdf5Format
from storage.shards.header import read_videos


@pytest.fixture
def shard(tmp_path, draw, static):
    FeatureStore(tmp_path, "hdf5").write(static, [draw("a.mp4"), draw("b.mp4", tokens=5)])
    (path,) = (tmp_path / "features" / static.name / static.key).glob("shard-*.h5")
    return path


def change(path, edit) -> None:
    """Change a shard in place as another program could, keeping its header and what it says of the file's size."""
    with h5py.File(path, "r+") as file:
        edit(file)
    data = path.read_bytes()
    block = data.index(b"\x89HDF")
    _, _, text = data[:block].partition(b"\n")
    lead = b"traitline %d\n%s" % (len(data), text.rstrip(b"\0"))
    path.write_bytes(lead.ljust(block, b"\0") + data[block:])


def test_any_hdf5_program_finds_the_numbers(shard, draw, static):
    videos = [draw("a.mp4"), draw("b.mp4", tokens=5)]
    with h5py.File(shard) as file:
        assert set(file) == {"vector", "time", "quality", "video_id", "first_row"}
        assert file["video_id"].asstr()[:].tolist() == ["a.mp4", "b.mp4"]
        assert file["first_row"][:].tolist() == [0, 3]
        assert file["time"].attrs["columns"].tolist() == [b"start_s", b"end_s"]
        assert file["time"].attrs["units"].tolist() == [b"s", b"s"]
        assert file["quality"].attrs["columns"].tolist() == [name.encode() for name in static.quality]
        assert file["vector"].attrs["dims"].tolist() == [b"row", b"number"]
        np.testing.assert_array_equal(file["vector"][:], np.concatenate([video.vectors for video in videos]))
        np.testing.assert_array_equal(file["time"][:, 0], np.concatenate([video.start_s for video in videos]))
        scores = np.concatenate([video.quality["face_score"] for video in videos])
        np.testing.assert_array_equal(file["quality"][:, static.quality.index("face_score")], scores)
        assert all(dataset.fletcher32 for dataset in file.values())


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="there is no h5dump (Debian: apt install hdf5-tools)")
def test_h5dump_shows_names_and_numbers(shard, draw):
    shown = subprocess.run(["h5dump", "-m", "%.9g", shard], check=True, capture_output=True, text=True).stdout
    assert re.findall(r'"([ab]\.mp4)', shown) == ["a.mp4", "b.mp4"]
    vectors = re.search(r'DATASET "vector" .*?DATA \{(.*?)\n      \}', shown, re.DOTALL)[1]
    numbers = re.sub(r"\(\d+,\d+\):", "", vectors).replace(",", " ").split()
    truth = np.concatenate([draw("a.mp4").vectors, draw("b.mp4", tokens=5).vectors])
    np.testing.assert_array_equal(np.array(numbers, np.float32).reshape(truth.shape), truth)


def test_chunks_are_what_is_read_at_a_time(tmp_path, draw):
    family = Family("static", 2048, {})
    FeatureStore(tmp_path, "hdf5").write(family, [draw(f"{number}.mp4", family, 16) for number in range(20)])
    (path,) = (tmp_path / "features" / family.name / family.key).glob("shard-*.h5")
    with h5py.File(path) as file:
        assert file["vector"].chunks == (128, 2048)


def replace_by(name, make):
    def edit(file):
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        make(file, name, shape, dtype)

    return edit


def external_link(file, name, *_):
    file[name] = h5py.ExternalLink("/etc/passwd", "/vector")


def soft_link(file, name, *_):
    file[name] = h5py.SoftLink("/time")


def external_storage(file, name, shape, dtype):
    file.create_dataset(name, shape, dtype, external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


def virtual(file, name, shape, dtype):
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource("/etc/hostname.h5", "vector", shape)
    file.create_virtual_dataset(name, layout)


def other_filter(file, name, shape, dtype):
    file.create_dataset(name, shape, dtype, chunks=shape, compression="gzip", fletcher32=True)


def other_shape(file, name, shape, dtype):
    file.create_dataset(name, (shape[0] - 1, *shape[1:]), dtype, chunks=True, fletcher32=True)


def group(file, name, *_):
    file.create_group(name)


@pytest.mark.parametrize(
    "make", [external_link, soft_link, external_storage, virtual, other_filter, other_shape, group]
)
@pytest.mark.parametrize("name", ["vector", "time"])
def test_file_with_a_door_to_elsewhere_is_found_and_leads_nobody_there(tmp_path, shard, draw, static, name, make):
    change(shard, lambda _: None)  # which as such does no harm
    check_shard(shard)
    change(shard, replace_by(name, make))
    with pytest.raises(StoreError, match=shard.name):
        check_shard(shard)
    header = Hdf5Format().read_header(shard)
    for position, video in enumerate((draw("a.mp4"), draw("b.mp4", tokens=5))):
        with contextlib.suppress(StoreError):  # readers here go past HDF5, and find the right numbers or none
            (found,) = read_videos(shard, Hdf5Format(), header, [position])
            assert found.checksum() == video.checksum()
    with pytest.raises((OSError, ValueError)):
        next(Hdf5Format().read_through_library(shard, header))


def test_additional_objects_are_found(shard):
    change(shard, lambda file: file.create_group("more"))
    with pytest.raises(StoreError, match=f"{shard.name}.*more"):
        check_shard(shard)


def test_numbers_changed_by_another_program_are_refused_though_hdf5_finds_its_checksums_right(tmp_path, shard, static):
    def edit(file):
        file["vector"][0, 0] += 1

    change(shard, edit)
    with pytest.raises(StoreError, match=rf"{shard.name}.*\ba\.mp4\b"):
        list(FeatureStore(tmp_path).read(static))


def test_damaged_checksum_of_hdf5_itself_is_found_by_the_thorough_check(tmp_path, shard, draw, static):
    data = bytearray(shard.read_bytes())
    vectors = np.concatenate([draw("a.mp4").vectors, draw("b.mp4", tokens=5).vectors]).tobytes()
    data[data.index(vectors) + len(vectors)] ^= 1
    shard.write_bytes(data)
    assert len(list(FeatureStore(tmp_path).read(static))) == 2
    with pytest.raises(StoreError, match=shard.name):
        check_shard(shard)


def test_threads_read_and_write_hdf5_at_once(tmp_path, draw, static):
    """Through h5py, which keeps threads apart by a lock of its own, beside other users of it such as Keras."""
    store = FeatureStore(tmp_path / "store", "hdf5")
    videos = {f"{number}.mp4": draw(f"{number}.mp4", tokens=200) for number in range(8)}
    store.write(static, list(videos.values()))
    (path,) = store.shards(static)
    header = Hdf5Format().read_header(path)

    def read() -> None:
        for found in Hdf5Format().read_through_library(path, header):
            assert found.checksum() == videos[found.video_id].checksum()

    def write() -> None:
        Hdf5Format().write(tmp_path / f"{threading.get_ident()}.h5", header, list(videos.values()))

    def use_elsewhere() -> None:
        with h5py.File(io.BytesIO(), "w") as file:
            file["weights"] = np.arange(1000.0)
            assert file["weights"][-1] == 999

    counts = Counter({read: 0, write: 0, use_elsewhere: 0})
    failed = threading.Event()

    def again_and_again(work: Callable[[], None]) -> None:
        try:
            while min(counts.values()) < 20 and not failed.is_set():
                work()
                counts[work] += 1
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(7) as pool:
        works = (read, read, read, read, write, write, use_elsewhere)
        for future in [pool.submit(again_and_again, work) for work in works]:
            future.result()


def test_names_of_videos_that_differ_from_the_header_are_found(shard):
    def edit(file):
        file["video_id"][0] = b"z.mp4"

    change(shard, edit)
    with pytest.raises(StoreError, match=rf"{shard.name}.*video_id"):
        check_shard(shard)
