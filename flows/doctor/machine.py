"""Checks of this machine for the command `traitline doctor`."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distributions, metadata, requires, version
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from extractors import dynamic, static
from extractors.assets import catalog
from extractors.assets.files import AssetError
from extractors.devices import memory_left, usable_cores
from extractors.dynamic.backbones import dynamic_backbone
from extractors.dynamic.settings import I3D
from extractors.networks import is_network_file
from extractors.networks.backbone import Backbone
from extractors.static.backbones import static_backbone
from extractors.static.settings import RESNET50
from flows.archive.families import (
    CHECK_ASSET,
    FACE_ASSET,
    FULL_RANGE_ASSET,
    RECOGNIZER_ASSET,
    Kind,
    asset_folder,
    face_assets,
)
from flows.config.settings import RunConfig
from flows.session.console import counted

Level = Literal["ok", "warning", "fault"]

GB = 1e9
# The features of 10,000 clips of 15 s take 1.7 GB; a scheduled run must not find a full disk.
LITTLE_DISK_GB, NO_DISK_GB = 10, 1
# Ten minutes of 720p took 2.3 GB in all processes; a second window in transfer, and the system, need the rest.
LITTLE_MEMORY_GB = 4
# An extraction of a clip ran out of 6 GB.
LITTLE_ADDRESS_SPACE_GB = 8
REINSTALL = "install the lock file into a new environment: pip install --require-hashes -r requirements.lock"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Args:
        level: "fault" if commands will fail, "warning" if they may fail or be slow.
        cure: what to do; empty for "ok".
    """

    subject: str
    level: Level
    found: str
    cure: str = ""


def check_python() -> Iterator[Finding]:
    """Check the interpreter and the versions of all required packages."""
    wanted = SpecifierSet(metadata("traitline")["Requires-Python"])
    if platform.python_version() in wanted:
        yield Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}")
    else:
        yield Finding("Python", "fault", platform.python_version(), f"create an environment with Python {wanted}")
    faults = []
    for requirement in map(Requirement, requires("traitline") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            faults.append(f"{requirement.name} is missing")
        else:
            if not requirement.specifier.contains(have, prereleases=True):
                faults.append(f"{requirement.name} is {have}, not {requirement.specifier}")
    if faults:
        yield Finding("packages", "fault", "; ".join(faults), REINSTALL)
    else:
        yield Finding("packages", "ok", f"traitline {version('traitline')}; all within their ranges")
    wheels = sorted({name for found in distributions() if (name := found.name.lower()).startswith("opencv-")})
    if len(wheels) > 1:
        # They write into the same folder, so which one wins is random.
        yield Finding("OpenCV's wheels", "fault", f"{', '.join(wheels)} overwrite each other", REINSTALL)


def check_machine() -> Iterator[Finding]:
    """Check processors and memory for this process, and the disks for temporary files and downloads."""
    yield Finding("processors", "ok", f"{counted(usable_cores(), 'core')}, {platform.machine()}")
    memory = _memory_gb()
    cure = "free some memory, or runs may be killed" if memory < LITTLE_MEMORY_GB else ""
    yield Finding("memory", "warning" if cure else "ok", f"{memory:.1f} GB available", cure)
    mapped, _ = resource.getrlimit(resource.RLIMIT_AS)
    if mapped != resource.RLIM_INFINITY and mapped < LITTLE_ADDRESS_SPACE_GB * GB:
        found = f"limited to {mapped / GB:.1f} GB (ulimit -v), of which libraries map much more than they use"
        yield Finding("address space", "warning", found, "ulimit -v unlimited; batch systems call it h_vmem or similar")
    places: tuple[tuple[str, Path, Level, str], ...] = (
        ("temporary files", Path(tempfile.gettempdir()), "fault", "TMPDIR"),
        # Only a warning, because there may be nothing to download.
        ("cache of downloads", catalog.user_cache(), "warning", "XDG_CACHE_HOME"),
    )
    for subject, folder, level, variable in places:
        cure = f"name another folder in {variable}"
        if (reason := why_not_writable(folder)) is None:
            yield disk(subject, folder, cure)
        else:
            yield Finding(subject, level, f"{folder} cannot be written: {reason}", cure)


def check_assets(config: RunConfig) -> Iterator[Finding]:
    """Check that the face detector and the networks' weights exist and are intact."""
    named = os.environ.get(catalog.ENVIRONMENT_VARIABLE)
    if named and not Path(named).is_dir():
        cure = f"correct {catalog.ENVIRONMENT_VARIABLE}; until then, only the cache is searched"
        yield Finding("asset folder", "warning", f"{named} does not exist", cure)
    for asset in catalog.select([]):
        if asset.name in (FACE_ASSET, FULL_RANGE_ASSET, CHECK_ASSET, RECOGNIZER_ASSET):
            wanted = asset.name in face_assets(config.faces)
        else:
            wanted = config.weights == "pretrained"
        usual = (network.base_model == RESNET50 and network.weights is None for network in config.static.networks)
        if asset.name == static.ASSET and not any(usual):
            wanted = False
        if asset.name == dynamic.ASSET and config.dynamic.base_model != I3D:
            wanted = False
        try:
            folder = catalog.resolve(asset.name, folder=asset_folder(config.assets, asset.name), download=False)
        except AssetError as error:
            if catalog.find(asset, config.assets) is not None:
                yield Finding(asset.name, "fault", str(error), f"remove it, then traitline assets fetch {asset.name}")
            elif wanted:
                cure = f"traitline assets fetch {asset.name}; without a network, traitline assets unpack BUNDLE"
                yield Finding(asset.name, "fault", "missing", cure)
            else:
                yield Finding(asset.name, "ok", "missing, and not needed with these settings")
        else:
            yield Finding(asset.name, "ok", str(folder))


def check_networks(config: RunConfig) -> Iterator[Finding]:
    """Check networks in files of the user's own, and name those whose weights Keras fetches."""
    fields = config.crops.window_fields
    chosen: list[tuple[Kind, str, Callable[[], Backbone]]] = [
        *(("static", one.base_model, partial(static_backbone, one, "random")) for one in config.static.networks),
        ("dynamic", config.dynamic.base_model, partial(dynamic_backbone, config.dynamic, "random", fields)),
    ]
    for kind, name, choose in chosen:
        if is_network_file(name):
            try:
                network = choose()
                network.fetch()
            except AssetError as error:
                yield Finding(f"{kind} network", "fault", str(error), f"correct {kind}.base_model")
            else:
                yield Finding(f"{kind} network", "ok", f"{name}, {counted(network.dim, 'number')} per token")
        elif name not in (RESNET50, I3D):
            yield Finding(f"{kind} network", "ok", f"{name}; Keras fetches its weights when they are first needed")


def disk(subject: str, folder: Path, cure: str) -> Finding:
    """Check the free space of the file system of a folder, which may not exist yet."""
    free = shutil.disk_usage(_nearest(folder)).free / GB
    if free >= LITTLE_DISK_GB:
        return Finding(subject, "ok", f"{free:,.0f} GB free in {folder}")
    level: Level = "fault" if free < NO_DISK_GB else "warning"
    return Finding(subject, level, f"{free:.1f} GB free in {folder}", f"free some space, or {cure}")


def why_not_writable(folder: Path) -> str | None:
    """Return why a folder, which may not exist yet, is not writable; None if it is. Leaves nothing behind."""
    # Permissions are not enough: the superuser has them all, and file systems refuse for other reasons.
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _nearest(folder: Path) -> Path:
    """Return the folder itself, or its first existing parent."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def _memory_gb() -> float:
    """Return the memory that the kernel and the container still grant this process."""
    return min(psutil.virtual_memory().available, memory_left()) / GB
