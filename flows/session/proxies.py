"""Traffic within this machine takes no proxy, whatever the environment says about proxies."""

from __future__ import annotations

import os

PROXY_VARIABLES = frozenset(
    spelled for name in ("http_proxy", "https_proxy", "all_proxy") for spelled in (name, name.upper())
)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


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
