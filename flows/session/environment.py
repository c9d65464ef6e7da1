"""What a process sets before it imports libraries or writes files: environment variables and access to its files."""

from __future__ import annotations

import atexit
import gc
import ipaddress
import os
import stat
from pathlib import Path

from flows.session import console
from storage.files.paths import StorePath

PROXY_VARIABLES = frozenset(
    spelled for name in ("http_proxy", "https_proxy", "all_proxy") for spelled in (name, name.upper())
)
LOOPBACK = ("localhost", "127.0.0.1", "::1")

SHARED = stat.S_ISGID | stat.S_IWGRP  # mode bits of a shared store's folder

_ENVIRONMENT = {
    # Otherwise child processes import modules from the present folder: the user's own, or those of another account.
    "PYTHONSAFEPATH": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(console.PACKAGES),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": console.LOG_FORMAT,
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": console.LOG_FORMAT.replace("%(name)s", "%(flow_run_name)s"),
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": console.LOG_FORMAT.replace("%(name)s", "%(task_run_name)s"),
    "PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT": console.LOG_TIME,
    "DASK_LOGGING__DISTRIBUTED": "warning",
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "KERAS_BACKEND": "tensorflow",
    # Otherwise TensorFlow takes a GPU's whole memory at once, and a second process on it gets none.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}

# Objects that are allocated between two searches for garbage. By default Python searches so often that this takes a
# fifth of the time in which TensorFlow is imported.
_GARBAGE_THRESHOLD = 50_000


def settle_environment() -> None:
    """Set the variables that libraries and child processes read. Call it before libraries are imported.

    Variables that the user has set stay, except that connections within this machine bypass proxies. Imports then also
    take less time, because the garbage collector runs less often.
    """
    gc.set_threshold(_GARBAGE_THRESHOLD)
    # The search for garbage at the end takes a second in a process that has imported TensorFlow.
    atexit.register(gc.freeze)
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    bypass_proxies()


def restrict_access(store: StorePath | None = None) -> None:
    """Let only this user read what the process writes from now on; in a shared store, also the group of its folder.

    A store is shared if its group may write to its folder and new files get that group, as after `chmod 2770 STORE`.
    """
    os.umask(0o007 if is_shared(store) else 0o077)


def is_shared(store: StorePath | None) -> bool:
    """Return whether the folder of a store gives its group access to what is written there."""
    return isinstance(store, Path) and store.is_dir() and store.stat().st_mode & SHARED == SHARED


def bypass_proxies(*hosts: str) -> None:
    """Add hosts, and this machine by its usual names, to NO_PROXY, which child processes inherit.

    Nothing changes if no proxy is set: a NO_PROXY alone would hide the system's own proxies from `urllib` on macOS.
    """
    if not PROXY_VARIABLES & os.environ.keys():
        return
    # If both spellings are set, the lower case counts for Python and curl.
    value = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    names = [name.strip() for name in value.split(",") if name.strip()]
    if "*" in names:
        names = ["*"]
    else:
        names += [host for host in (*LOOPBACK, *hosts) if host not in names]
    for variable in ("no_proxy", "NO_PROXY"):
        os.environ[variable] = ",".join(dict.fromkeys(names))


def is_loopback(host: str) -> bool:
    """Return whether a host, a name or an address, is this machine as only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
