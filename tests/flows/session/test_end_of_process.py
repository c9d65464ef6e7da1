"""A process whose work is done ends well, whatever Prefect has left in it."""

from __future__ import annotations

import os
import subprocess
import sys

# Who is asked for codecs is forgotten last of all, as are threads of Dask's and their tasks.
KEEPS_A_TIME = """
import codecs
from datetime import datetime
from pydantic import TypeAdapter
import flows
time = TypeAdapter(datetime).validate_json('"2026-01-01T00:00:00+02:00"')
codecs.register(lambda name, time=time: None)
"""


def test_times_of_pydantic_that_are_left_crash_nothing():
    environment = {**os.environ, "PYTHONMALLOC": "debug"}  # what is used after it was freed is found out
    done = subprocess.run([sys.executable, "-c", KEEPS_A_TIME], env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
