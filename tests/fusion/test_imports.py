"""What importing costs."""

import subprocess
import sys


def test_reading_labels_and_tokens_needs_no_keras():
    code = (
        "import sys, fusion, fusion.labels.read, fusion.labels.matching, fusion.clips.tokens, fusion.traits\n"
        "print([name for name in ('keras', 'tensorflow', 'matplotlib') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
