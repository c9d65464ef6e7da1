"""What libraries read from the environment, set before they are imported."""

from __future__ import annotations

import os

from flows.session import console
from flows.session.proxies import bypass_proxies

_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(console.PACKAGES),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": console.LOG_FORMAT,
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": console.LOG_FORMAT.replace("%(name)s", "%(flow_run_name)s"),
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": console.LOG_FORMAT.replace("%(name)s", "%(task_run_name)s"),
    "PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT": console.LOG_TIME,
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "KERAS_BACKEND": "tensorflow",
    # Else TensorFlow takes a GPU's whole memory at once, and a second process on it gets none.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}


def settle_environment() -> None:
    """Set what libraries and child processes read from the environment; call it before libraries are imported.

    What the user has set stays, but that traffic within this machine takes no proxy.
    """
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    bypass_proxies()
