"""What a process of Traitline spares itself."""

from __future__ import annotations

import subprocess
import sys

LEAVES_GARBAGE = """
import sys
from flows.session.environment import settle_environment
if len(sys.argv) > 1:
    settle_environment()
class Left:
    def __init__(self):
        self.itself = self
    def __del__(self):
        print("found", flush=True)
kept = Left()
"""


def test_nothing_is_searched_for_garbage_when_a_process_ends():
    found = [
        subprocess.run([sys.executable, "-c", LEAVES_GARBAGE, *settled], capture_output=True, text=True, check=True)
        for settled in ([], ["settled"])
    ]
    assert [done.stdout for done in found] == ["found\n", ""]
