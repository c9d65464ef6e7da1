"""What it takes to list a large archive, to find what is left to do in its store, and to choose a shard of it.

Run it as `python tests/benchmarks/bench_planning.py [--videos N ...]`. The rows of the manifest are drawn and
committed, for two families, without shards. A new process does what `traitline extract` does before and between shards,
and then what `traitline rescore` does before it scores; for the first row of a size, no run has listed the folder yet.
The folder answers without a file system, whose time to list it and to look at each file comes on top. Memory is the
peak so far. All is in the page cache. The last row of a size reads a text file that names all videos, in a store that
knows none of them. Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from drawn_manifest import draw_list, draw_manifest, plan, read_list
from rich.console import Console
from rich.table import Table


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    table = Table("videos", title="What is left to do, processor time")
    headings = ("run", "list s", "MB", "plan s", "MB", "files read", "a shard s", "files read", "rescore s", "MB")
    for heading in headings:
        table.add_column(heading, justify="right")
    for count in parser.parse_args().videos:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch, "store")
            draw_manifest(root, count)
            for run in ("first", "second"):
                found = plan(root, count)
                table.add_row(
                    f"{count:,}",
                    run,
                    f"{found['list_s']:.1f}",
                    f"{found['list_mb']:,.0f}",
                    f"{found['plan_s']:.1f}",
                    f"{found['peak_mb']:,.0f}",
                    f"{found['plan_files']:,}",
                    f"{found['shard_s']:.3f}",
                    f"{found['shard_files']}",
                    f"{found['rescore_s']:.1f}",
                    f"{found['rescore_mb']:,.0f}",
                )
            listed = Path(scratch, "list.txt")
            draw_list(listed, count)
            found = read_list(Path(scratch, "unused"), count, listed)
            table.add_row(f"{count:,}", "a list", f"{found['list_s']:.1f}", f"{found['list_mb']:,.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
