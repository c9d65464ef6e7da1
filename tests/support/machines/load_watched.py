"""Loads models one after the other in a process that notes all it does: run as `python load_watched.py STORE NAMES...`.

Prints why a model is refused whose class nobody has imported, then a line of JSON for each: what came of it, and every
audit event of running code, opening, importing, connecting.
"""

from __future__ import annotations

import encodings.ascii  # noqa: F401  else imported when the first array of text is looked at
import json
import resource
import sys

EVENTS = ("open", "exec", "compile", "import", "marshal", "pickle", "subprocess", "socket", "os", "shutil", "urllib")
HARMLESS = ("os.listdir", "os.scandir", "os.putenv")


def main(root: str, names: list[str]) -> None:
    from storage import ModelSerializer, StoreError

    try:
        ModelSerializer(root).load("good")
    except StoreError as error:  # its class is not registered as yet
        print(json.dumps(str(error)))
    import fusion.model.model  # noqa: F401  registers the classes

    events: list[str] | None = None

    def note(event: str, arguments: tuple) -> None:
        if events is not None and event.partition(".")[0] in EVENTS and event not in HARMLESS:
            events.append(f"{event} {arguments}"[:300])

    sys.addaudithook(note)
    serializer = ModelSerializer(root)
    serializer.load("good")  # whatever is imported at the first load
    for name in names:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        events = []
        try:
            outcome = type(serializer.load(name)[0]).__name__
        except StoreError as error:
            outcome = f"refused: {error}"
        seen, events = events, None
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps({"name": name, "outcome": outcome, "events": seen, "grown_kb": grown_kb}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
