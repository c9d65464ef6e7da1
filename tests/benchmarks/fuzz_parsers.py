"""Fuzz every parser for a while, each in a process of its own: `fuzz_parsers.py [--seconds 60] [NAME ...]`.

With atheris (`pip install atheris`, which is no dependency), inputs are guided by which lines of Traitline they reach;
without it Hypothesis draws them. Prints a line for each parser: inputs, seconds, and what came out that must not.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support" / "hostile")]
PACKAGES = ["extractors", "flows", "fusion", "storage"]
MEMORY_MB = 4096


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", help="parsers, all where none is named")
    options.add_argument("--seconds", type=int, default=60, help="for each parser")
    options.add_argument("--guided", metavar="FOLDER", help=argparse.SUPPRESS)  # the child's way in
    given = options.parse_args()
    guided = importlib.util.find_spec("atheris") is not None
    if given.guided:
        fuzz_guided(given.names[0], Path(given.guided))
    from file_parsers import file_parsers

    with tempfile.TemporaryDirectory() as folder:
        known = {parser.name: parser for parser in file_parsers(Path(folder))}
    faults = 0
    for name in given.names or known:
        began = time.monotonic()
        tries, fault = in_child(name, given.seconds) if guided else by_hypothesis(name, given.seconds)
        way = "guided by coverage" if guided else "drawn"
        print(
            f"{name:24} {tries:9,} {way} in {time.monotonic() - began:4.0f} s; {fault or 'nothing amiss'}", flush=True
        )
        faults += bool(fault)
    return 1 if faults else 0


def in_child(name: str, seconds: int) -> tuple[int, str]:
    """Let atheris work, whose process ends with it: number of inputs, and the last words of one that must not be."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, "--guided", folder, name, "--seconds", str(seconds)],
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
            env={**os.environ, "FUZZ_SECONDS": str(seconds), "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        tries = [int(number) for number in re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)]
        total = re.search(r"Done (\d+) (?:runs )?in", done.stderr)
        count = int(total[1]) if total else max(tries, default=0)
        if done.returncode == 0:
            return count, ""
        for path in Path(folder).glob("*-*"):  # crash-..., oom-..., timeout-...
            if path.is_file():
                kept = Path(tempfile.gettempdir(), f"traitline-{name.replace(' ', '_')}-{path.name}"[:200])
                kept.write_bytes(path.read_bytes())
                return count, f"{kept}: {_last_words(done.stderr)}"
        return count, _last_words(done.stderr)


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if re.match(r"(\w+\.)*\w*(Error|Exception)\b|.*ERROR: lib", line)]
    return lines[0][:200] if lines else text[-300:]


def fuzz_guided(name: str, folder: Path) -> None:
    """Never returns."""
    import atheris

    with atheris.instrument_imports(include=PACKAGES):
        from changed_files import TOKENS
        from file_parsers import file_parsers
    good = folder / "good"
    good.mkdir()
    parser = next(parser for parser in file_parsers(good) if parser.name == name)
    corpus, place = folder / "corpus", folder / "place"
    corpus.mkdir()
    place.mkdir()
    for number, seed in enumerate(parser.seeds):
        (corpus / f"{number:03d}").write_bytes(seed)
    words = (b"".join(b"\\x%02x" % letter for letter in token).decode() for token in TOKENS if 1 < len(token) < 100)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in words))

    def one(data: bytes) -> None:
        parser.try_on(place, data)

    limits = [f"-max_total_time={os.environ['FUZZ_SECONDS']}", f"-rss_limit_mb={MEMORY_MB}", "-timeout=20"]
    longest = 2 * max(map(len, parser.seeds)) + 4096
    atheris.Setup([sys.argv[0], *limits, f"-max_len={longest}", f"-dict={folder / 'words'}", str(corpus)], one)
    atheris.Fuzz()


def by_hypothesis(name: str, seconds: int) -> tuple[int, str]:
    """Draw inputs until the time is over."""
    from changed_files import changed_bytes, changed_tree
    from file_parsers import file_parsers
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    tries, ends = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as good, tempfile.TemporaryDirectory() as place:
        parser = next(parser for parser in file_parsers(Path(good)) if parser.name == name)
        kinds = changed_bytes(parser.seeds)
        if parser.seal is not None:
            kinds |= st.sampled_from(parser.trees).flatmap(changed_tree).map(parser.seal)

        @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(kinds)
        def check(data: bytes) -> None:
            nonlocal tries
            tries += 1
            parser.try_on(Path(place), data)

        while time.monotonic() < ends:
            try:
                check()
            except Exception as error:
                return tries, f"{type(error).__name__}: {error}"[:300].replace("\n", " ")
    return tries, ""


if __name__ == "__main__":
    sys.exit(main())
