"""Reads hostile files in a process that notes all it does: run as `python read_hostile.py FOLDER`.

FOLDER/attacks.json lists [parser, title, file]. Prints a line of JSON for each: what came of it, and every audit event
of running code, opening, importing, connecting, removing.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from file_parsers import file_parsers

EVENTS = (
    *("open", "exec", "compile", "import", "marshal", "pickle", "subprocess", "socket", "os", "shutil", "urllib"),
    *("ctypes", "http", "ftplib", "smtplib", "webbrowser", "tempfile", "glob", "code"),
)


def main(folder: Path) -> None:
    (folder / "good").mkdir()
    parsers = {parser.name: parser for parser in file_parsers(folder / "good")}
    place = folder / "place"
    # Whatever is imported at the first good and the first bad file, codecs included.
    encoded = ("a".encode("utf-16"), "a".encode("utf-16-le"), "a".encode("utf-16-be"), b"\xe9", b"\x81")
    for parser in parsers.values():
        for data in (
            *parser.seeds,
            b"",
            b"\x80\x02",
            b"x: [",
            b"{",
            b"{}",
            parser.seeds[0][:-9],
            b"\xff" * 9,
            *encoded,
        ):
            parser.try_on(place, data)
    events: list[str] | None = None

    def note(event: str, arguments: tuple) -> None:
        if events is not None and event.partition(".")[0] in EVENTS:
            events.append(f"{event} {arguments}"[:300])

    sys.addaudithook(note)
    for name, title, file in json.loads((folder / "attacks.json").read_text()):
        data = (folder / file).read_bytes()
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        events = []
        try:
            outcome = parsers[name].try_on(place, data)
        except Exception as error:
            outcome = f"FAULT {type(error).__name__}: {error}"
        seen, events = events, None
        report = {"parser": name, "title": title, "outcome": outcome, "events": seen, "s": time.process_time() - began}
        report["grown_kb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
