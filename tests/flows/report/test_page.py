"""The report in a browser, opened from the disk as a person opens it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_store import BREAKOUT, SCRIPT
from scipy.spatial.distance import pdist

from flows.config.settings import ReportSettings
from flows.pipeline.report import report
from fusion.traits import TRAITS
from storage import ScoreStore

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine, to open the report with")

QUIETLY = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 360, "height": 800}


@pytest.fixture(scope="module")
def path(report_store) -> Path:
    config = report_store.config.model_copy(update={"report": ReportSettings(clips=(SCRIPT, BREAKOUT))})
    return report.fn(config, report_store.videos, report_store.model)


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIETLY))
        yield found
        found.close()


@pytest.fixture
def opened(browser):
    """Opens a page as `opened(path, ...)`; what it asked for and complained about are its `asked` and `complaints`."""
    contexts = []

    def visit(path: Path, **options):
        contexts.append(browser.new_context(**{"viewport": WIDE, **options}))
        page = contexts[-1].new_page()
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()


def tab_to(page, selector: str) -> None:
    """Press Tab until a place has the focus."""
    for _ in range(300):  # tables, folded parts and charts that scroll come before
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"Tab does not come to {selector}")


def broken_words(page, selector: str) -> list[str]:
    """Words that are spread over several lines."""
    return page.evaluate(
        r"""(selector) => [...document.querySelectorAll(selector)].flatMap((part) => {
            const broken = [], texts = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
            for (let node = texts.nextNode(); node; node = texts.nextNode())
                for (const word of node.data.matchAll(/\w+/g)) {
                    const range = document.createRange();
                    range.setStart(node, word.index);
                    range.setEnd(node, word.index + word[0].length);
                    if (new Set([...range.getClientRects()].map((box) => box.top)).size > 1) broken.push(word[0]);
                }
            return broken;
        })""",
        selector,
    )


def column(page, table: str, heading: str) -> list[str]:
    """Cells of a column from top to bottom."""
    headings = page.locator(f"#{table} thead th").all_inner_texts()
    place = [text.strip() for text in headings].index(heading)
    return page.locator(f"#{table} tbody tr > :nth-child({place + 1})").all_inner_texts()


def test_it_asks_for_nothing_but_itself_and_complains_of_nothing(opened, path):
    page = opened(path)
    page.mouse.wheel(0, 50_000)
    page.wait_for_load_state("networkidle")
    assert page.asked == [path.as_uri()]
    assert page.complaints == []


def test_the_video_named_script_is_text(opened, path):
    page = opened(path)
    shown = page.locator("#videos tbody th").all_inner_texts()
    assert {SCRIPT, BREAKOUT} <= set(shown)
    figures = page.locator("#attention ~ .clips figcaption code").all_inner_texts()
    assert figures == [SCRIPT, BREAKOUT]
    assert page.locator("script").count() == 1
    assert page.complaints == []


def test_a_script_or_picture_that_slips_in_is_not_run_or_fetched(opened, path, tmp_path):
    """The page's own policy stops it; nothing else does here."""
    page_text = path.read_text(encoding="utf-8")
    planted = (
        "<script>window.planted = 1</script><img src='http://127.0.0.1:9/p.png' onerror='window.planted = 2'></body>"
    )
    (tmp_path / "planted.html").write_text(page_text.replace("</body>", planted), encoding="utf-8")
    page = opened(tmp_path / "planted.html")
    assert page.evaluate("window.planted") is None
    assert len([text for text in page.complaints if "Content Security Policy" in text]) >= 2


def test_a_click_sorts_a_column_by_number_and_another_click_turns_it_round(opened, path, report_store):
    page = opened(path)
    heading = page.locator("#videos thead th", has_text="openness")
    button = heading.locator("button")
    assert heading.get_attribute("aria-sort") == "none"
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    scores = {row.video_id: row.traits[0] for row in ScoreStore(report_store.config.store.path).read("traits", "1")}
    names = page.locator("#videos tbody th").all_inner_texts()
    assert len(names) == len(scores)
    in_order = [scores[name] for name in names]
    assert all(one <= other + 1e-3 for one, other in pairwise(in_order))  # as far as digits are shown
    button.click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert float(column(page, "videos", "openness")[0]) == pytest.approx(max(scores.values()), abs=6e-4)
    page.locator("#videos thead button", has_text="neuroticism").click()
    assert heading.get_attribute("aria-sort") == "none"


def test_numbers_with_intervals_are_sorted_by_the_number(opened, path):
    page = opened(path)
    table = page.locator("table", has=page.locator("caption", has_text="Mean over traits")).first
    table.locator("thead button", has_text="1-MAE, unseen people").click()
    cells = table.locator("tbody tr > :nth-child(4)").all_inner_texts()
    values = [float(cell.split()[0]) for cell in cells]
    assert len(values) == 3
    assert values == sorted(values)


def test_a_filter_leaves_the_rows_with_all_words_and_says_how_many(opened, path, report_store):
    page = opened(path)
    box = page.locator("p.filter", has=page.locator("#videos-filter"))
    assert (
        box.locator("output").inner_text() == f"{len(report_store.videos) - 1} of {len(report_store.videos) - 1} rows"
    )
    page.get_by_label("Filter rows").and_(page.locator("#videos-filter")).fill("P01 .mp4")
    wanted = sorted(video.video_id for video in report_store.videos if "p01" in video.video_id)
    assert len(wanted) == 20
    shown = page.locator("#videos tbody tr:visible th").all_inner_texts()
    assert sorted(shown) == wanted
    assert box.locator("output").inner_text() == f"20 of {len(report_store.videos) - 1} rows"
    page.locator("#videos-filter").fill("")
    assert page.locator("#videos tbody tr:visible").count() == len(report_store.videos) - 1


def test_the_keyboard_alone_skips_sorts_and_filters(opened, path):
    page = opened(path)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    tab_to(page, "#statistics thead button")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert column(page, "statistics", "trait") == sorted(TRAITS)
    page.keyboard.press("Space")
    assert column(page, "statistics", "trait") == sorted(TRAITS, reverse=True)
    tab_to(page, "#videos-filter")
    page.keyboard.type("p01")
    assert page.locator("#videos tbody tr:visible").count() == 20


@pytest.mark.parametrize(("media", "width"), [("screen", 1200), ("screen", 360), ("print", 688)])
def test_no_word_of_a_heading_or_of_a_large_figure_is_broken(opened, path, media, width):
    page = opened(path, viewport={"width": width, "height": 900})
    page.emulate_media(media=media)
    assert broken_words(page, "thead th, .tiles div, h1, h2") == []
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_table_of_videos_fits_a_screen_of_usual_width(opened, path):
    page = opened(path)
    assert page.evaluate("document.querySelector('.scroll:has(#videos)').scrollWidth") <= page.evaluate(
        "document.querySelector('.scroll:has(#videos)').clientWidth"
    )


def test_a_long_name_leaves_room_for_the_scores(opened, path, report_store, tmp_path):
    name = next(video.video_id for video in report_store.videos if "p01" in video.video_id)
    long = f"{'session-' * 12}/{'x' * 180}/{name}"
    (tmp_path / "long.html").write_text(path.read_text("utf-8").replace(f"<code>{name}<", f"<code>{long}<"), "utf-8")
    for options, share in (({}, 0.25), ({"viewport": NARROW}, 0.45)):
        page = opened(tmp_path / "long.html", **options)
        box = page.locator("#videos tbody th", has_text="session-").first.bounding_box()
        assert box["width"] < share * options.get("viewport", WIDE)["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= options.get("viewport", WIDE)["width"]


def test_without_scripts_all_is_there_to_read(opened, path, report_store):
    page = opened(path, java_script_enabled=False)
    assert page.locator("#videos tbody tr:visible").count() == len(report_store.videos) - 1
    assert page.locator(".filter:visible").count() == 0


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        pytest.param({"color_scheme": "light"}, {}, id="light"),
        # The same page but for its colours.
        pytest.param({"color_scheme": "dark"}, {"runOnly": ["color-contrast", "link-in-text-block"]}, id="dark"),
        pytest.param({"color_scheme": "light", "viewport": NARROW}, {}, id="narrow"),
        pytest.param(
            {"color_scheme": "dark", "viewport": NARROW},
            {"runOnly": ["color-contrast", "link-in-text-block"]},
            id="narrow and dark",
        ),
    ],
)
def test_axe_finds_no_serious_fault(opened, path, options, rules):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(path, **options)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    results = axe.run(page, options={"resultTypes": ["violations"], **rules})
    found = [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in results.response["violations"]]
    assert found == []
    assert page.evaluate("document.documentElement.scrollWidth") <= options.get("viewport", WIDE)["width"]


# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as people see it who lack one kind of cone.
SIGHTS = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
APART = 20  # in CIE Lab; the closest of Okabe and Ito's seven are 16 to 26 apart


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_tell_its_colours_apart(opened, path, scheme):
    page = opened(path, color_scheme=scheme)
    for classes in ([f"share-{place}" for place in range(5)], ["fill-a", "fill-b", "fill-n"]):
        fills = [page.locator(f".{one}").first.evaluate("(part) => getComputedStyle(part).fill") for one in classes]
        rgb = np.array([re.findall(r"\d+", fill) for fill in fills], np.float64) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        for sight, matrix in SIGHTS.items():
            seen = np.clip(linear @ np.transpose(matrix), 0, 1).astype(np.float32)
            apart = pdist(cv2.cvtColor(seen[None], cv2.COLOR_LRGB2LAB)[0]).min()
            assert apart > APART, (sight, classes)


def test_axe_would_find_a_fault(opened, path, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    broken = path.read_text(encoding="utf-8").replace('<label for="videos-filter">Filter rows</label>', "")
    (tmp_path / "broken.html").write_text(broken, encoding="utf-8")
    results = axe.run(opened(tmp_path / "broken.html"), options={"runOnly": ["label"]})
    found = {fault["id"] for fault in results.response["violations"]}
    assert "label" in found


def test_on_paper_it_is_light_whole_and_without_what_one_cannot_press(opened, path, tmp_path):
    page = opened(path, color_scheme="dark")
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 within its margins
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".contents:visible, .filter:visible").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
