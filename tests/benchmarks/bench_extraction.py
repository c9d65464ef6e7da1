"""Where the time of one clip's extraction goes, stage by stage.

Run it as `python tests/benchmarks/bench_extraction.py [--video FILE]`. Without a video it takes a 15 s clip of the
corpus where that is present, else a demo clip of 4 s. A first extraction, which builds graphs and caches, is not
counted. The total is compared with how long the clip lasts; nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from extractors.video import probe
from flows.config import load_config
from flows.demo_corpus import render_demo_corpus
from flows.extraction import Extractor, Job
from flows.families import families_of
from flows.manifest import scan_videos
from flows.stopwatch import STAGES

CORPUS = Path(os.environ.get("TRAITLINE_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))
CORPUS_CLIP = CORPUS / "fi_v2" / "98fnGDVky00.005.mp4"
REPEATS = 3


def measure(video: Path, scratch: Path) -> list[dict[str, float]]:
    """Return seconds by stage for each of the repeats, after one that does not count."""
    folder = scratch / "copies"
    folder.mkdir()
    for number in range(1 + REPEATS):
        # Other bytes behind the same pictures: what is cached of one copy does not serve the next.
        (folder / f"{number}{video.suffix}").write_bytes(video.read_bytes() + bytes([number]))
    config = load_config(flags={"weights": "random", "store.path": scratch / "store"})
    with Extractor(config, families_of(config)) as extractor:
        copies = scan_videos(folder, scratch / "digests.parquet")
        runs = [extractor.extract([Job(copy, static=True, dynamic=True)]).seconds for copy in copies]
    return runs[1:]


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="clip to extract")
    with tempfile.TemporaryDirectory() as scratch:
        video = parser.parse_args().video
        if video is None:
            video = CORPUS_CLIP if CORPUS_CLIP.is_file() else render_demo_corpus(Path(scratch)).videos / "mixed.mp4"
        duration_s = probe(video).duration_s
        runs = measure(video, Path(scratch))
    seconds = {stage: median(run.get(stage, 0.0) for run in runs) for stage in STAGES}
    total = sum(seconds.values())
    table = Table(title=f"{video.name}: {duration_s:.1f} s, median of {REPEATS}, {len(os.sched_getaffinity(0))} cores")
    for heading in ("stage", "seconds", "share"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, value in seconds.items():
        table.add_row(stage, f"{value:.2f}", f"{value / total:.0%}")
    table.add_section()
    table.add_row("all", f"{total:.2f}", f"{total / duration_s:.2f} of the clip's length")
    Console().print(table)


if __name__ == "__main__":
    main()
