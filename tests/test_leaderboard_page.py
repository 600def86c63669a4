"""The leaderboard page in a real browser: what it shows, computes and obeys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.chromium import NAMES, Page, chromium, installed
from tests.conftest import ROOT
from tests.measured_runs import UNFINISHED, a_leaderboard, curves, noisy, smoothed, videos
from vigil import leaderboard_page
from vigil.comparison import details_in
from vigil.judging import against_all
from vigil.leaderboard import read_claims, read_measured, write_page
from vigil.statistics import Runs, paired

needs_browser = pytest.mark.skipif(
    installed() is None, reason=f"needs a browser: none of {', '.join(NAMES)} is installed (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the sample leaderboard."""
    folder = tmp_path_factory.mktemp("leaderboard")
    rows = read_measured(a_leaderboard(folder))
    claims = read_claims(ROOT / "results" / "claims.csv")
    write_page(folder / "page.html", rows, claims, details_in(folder), UNFINISHED)
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One tab for all tests."""
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(browser: Page, file: Path) -> Iterator[Page]:
    """The page freshly loaded in a light window of 1280 by 900; no test leaves it with a complaint or a request."""
    browser.events.clear()
    browser.resize(1280, 900)
    browser.open(file)
    yield browser
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith(("file:", "blob:", "data:"))] == []


ROWS = "[...document.querySelectorAll('#table-1 tbody tr')]"
NAMES_SHOWN = f"{ROWS}.map(row => row.querySelector('button.open').textContent.trim())"


def choose(page: Page, select: str, value: str) -> None:
    """As a user does: set it and let the page know."""
    page.run(
        f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input', {{bubbles: true}})); "
        f"e.dispatchEvent(new Event('change', {{bubbles: true}})) }})(document.querySelector({json.dumps(select)}))"
    )


def open_row(page: Page, name: str) -> None:
    """A click on the row, away from its button."""
    page.run(f"{ROWS}.find(row => row.textContent.includes({json.dumps(name)})).cells[1].click()")
    page.wait("document.querySelector('dialog').open && document.querySelector('dialog .chart .main-svg')")


@needs_browser
def test_the_page_loads_from_a_file_without_a_word_on_the_console_or_a_request(page: Page) -> None:
    assert page.run("document.title") == "Vigil: video anomaly detection, measured"
    assert page.run("document.documentElement.lang") == "en"
    assert page.run(f"{ROWS}.length") == 8
    assert page.run("document.querySelector('#filter-told').textContent") == "14 measured, 487 published"


@needs_browser
def test_a_click_on_a_head_sorts_and_another_turns_it(page: Page) -> None:
    values = "[...document.querySelectorAll('#table-1 tbody td:nth-child(7)')].map(cell => Number(cell.dataset.order))"
    before = page.run(values)
    head = "[...document.querySelectorAll('#table-1 thead th')][6]"
    assert page.run(f"{head}.textContent") == "frame AP"
    page.run(f"{head}.click()")
    first = page.run(values)
    page.run(f"{head}.click()")
    second = page.run(values)
    assert first == sorted(before)
    assert second == sorted(before, reverse=True)
    assert page.run(f"{head}.getAttribute('aria-sort')") == "descending"


@needs_browser
def test_filters_leave_what_fits(page: Page) -> None:
    shown = "[...document.querySelectorAll('section.measured')].filter(s => !s.hidden).map(s => s.id)"
    assert page.run(shown) == ["table-1", "table-2", "table-3"]
    choose(page, "#filter-dataset", "XD-Violence")
    assert page.run(shown) == ["table-3"]
    assert page.run("document.querySelector('#filter-told').textContent") == "5 measured, 134 published"
    choose(page, "#filter-dataset", "")
    choose(page, "#filter-supervision", "zero-shot")
    assert "Lavida †" in page.run(NAMES_SHOWN)
    assert "HiProbe" not in page.run(NAMES_SHOWN)
    assert "random" in page.run(NAMES_SHOWN)  # controls are of every supervision
    choose(page, "#filter-supervision", "")
    page.run("document.querySelector('#filter-controls').click()")
    assert "random" not in page.run(NAMES_SHOWN)
    choose(page, "#filter-text", "handed scores")
    assert page.run(NAMES_SHOWN) == ["<script>alert(1)</script>"]


@needs_browser
def test_a_protocol_filter_knows_what_was_judged_and_what_judged(page: Page) -> None:
    choose(page, "#filter-protocol", '["selection","test (oracle)"]')
    assert page.run(NAMES_SHOWN) == ["Lavida †"]
    assert page.run("[...document.querySelectorAll('section.published')].every(s => s.hidden)")
    choose(page, "#filter-protocol", '["videos","12"]')
    assert page.run("[...document.querySelectorAll('section.measured')].filter(s => !s.hidden).map(s => s.id)") == [
        "table-2"
    ]
    assert "Stands apart" in page.run("document.querySelector('#table-2').textContent")


@needs_browser
def test_published_numbers_stand_apart_with_their_source_marks_and_notes(page: Page) -> None:
    text = page.run("document.querySelector('#table-3 + .published').textContent")
    assert "not known or not ours" in text
    choose(page, "#filter-text", "LAVIDA 90.62")
    rows = page.run("[...document.querySelectorAll('#table-3 + .published tbody tr')].map(r => r.textContent)")
    assert any("LAVIDA, CVPR 2026 (arXiv 2602.19248), Tab. 1" in row and "contradicted" in row for row in rows)
    assert all("computes ROC AUC on XD-Violence" in row for row in rows)
    beside = page.run("document.querySelector('details.claims summary')?.textContent")
    assert beside is None or "printed by" in beside
    choose(page, "#filter-text", "")
    assert page.run(
        f"{ROWS}.find(r => r.textContent.includes('Lavida')).querySelector('details.claims').textContent"
    ).count("Tab. 5")


@needs_browser
def test_any_two_rows_are_compared_as_python_compares_them(page: Page) -> None:
    world = videos()
    scorers = {"HiProbe": noisy(0.35, 0.12), "SteerVad": noisy(0.3, 0.15), "Lavida": noisy(0.1, 0.25)}
    form = "document.querySelector('#table-1 form.pair')"
    page.run(
        f"window.pick = (n, value) => {{ const s = {form}.querySelectorAll('select')[n]; s.value = n < 2 ? "
        "[...s.options].find(o => o.text === value).value : value; s.dispatchEvent(new Event('change')); }"
    )
    for one, other in (("HiProbe", "SteerVad"), ("Lavida", "SteerVad"), ("Lavida", "HiProbe")):
        raw = [curves(world, scorers[name], 0) for name in (one, other)]
        refined = [{name: smoothed(curve) for name, curve in kind.items()} for kind in raw]
        page.run(f"pick(0, {json.dumps(other)}), pick(1, {json.dumps(one)})")
        for end, judged in (("", raw), ("_refined", refined)):
            runs = [Runs.of(against_all(world, [kind[video.name] for video in world])) for kind in judged]
            expected = paired(*runs)
            for key, name in (("frame_auroc", "auroc"), ("frame_ap", "average_precision")):
                page.run(f"pick(2, {json.dumps(key + end)})")
                found = page.run(f"({{...{form}.querySelector('output').dataset}})")
                for field in ("value", "low", "high", "p"):
                    assert float(found[field]) == pytest.approx(getattr(expected[name], field), abs=1e-6), (one, other)
    said = page.run(f"{form}.querySelector('output').textContent")
    assert re.match(
        r"[+−]0\.\d{3} \[[+−]0\.\d{3}, [+−]0\.\d{3}\], p = 0\.\d+; the first row less the second, over 1,000 draws",
        said,
    )


@needs_browser
def test_a_row_opens_its_curves_diagrams_protocol_and_command(page: Page) -> None:
    open_row(page, "SteerVad")
    page.wait("document.querySelectorAll('dialog .chart .main-svg').length >= 9")
    dialog = "document.querySelector('dialog')"
    assert page.run(f"{dialog}.querySelector('h2').textContent") == "SteerVad"
    shown = "c.data.map(t => t.name), c.layout.shapes.length, c.data[0].x, c.data[0].y"
    chart = page.run(f"(c => [{shown}])({dialog}.querySelector('.chart'))")
    world = videos()
    curve = curves(world, noisy(0.3, 0.15), 0)[world[0].name]
    assert chart[0] == ["score", "refined", "annotated event"]
    assert chart[1] == len(world[0].anomalies or [])
    assert chart[2] == pytest.approx((curve.edge / 30).tolist())
    assert chart[3][:-1] == pytest.approx(curve.score.tolist(), abs=1e-5)
    assert page.run(f"{dialog}.querySelectorAll('#row-video option').length") == len(world)
    page.run(f"[...{dialog}.querySelectorAll('.picker button')].find(b => b.textContent === 'next').click()")
    page.wait(f"{dialog}.querySelector('.said[role=status]').textContent.startsWith({json.dumps(world[1].name)})")
    second = page.run(f"(c => [c.data[0].x, c.data[1].y])({dialog}.querySelector('.chart'))")
    expected = smoothed(curves(world, noisy(0.3, 0.15), 0)[world[1].name])
    assert second[0] == pytest.approx((expected.edge / 30).tolist())
    assert second[1][:-1] == pytest.approx(expected.score.tolist(), abs=1e-5)
    text = page.run(f"{dialog}.textContent")
    for told in (
        "Reliability",
        "Frame AUROC per class",
        "convention",
        "every frame, ends exclusive",
        "config hash",
        "c0ffee",
        "lightning test -c configs/systems/steervad.yaml --seed_everything 0",
        "87.15 %",
    ):
        assert told in text
    classes = page.run(f"{dialog}.querySelectorAll('.chart')[2].data.map(t => [t.name, [...t.y].sort()])")
    assert classes == [[name, ["Abuse", "Arson", "Fighting", "Robbery"]] for name in ("score", "refined")]
    reliability = page.run(f"{dialog}.querySelectorAll('.chart')[1].data[1].customdata.reduce((a, b) => a + b)")
    assert reliability == sum(video.n_frames or 0 for video in world)


@needs_browser
def test_the_command_is_copied(page: Page) -> None:
    page.run(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async text => { window.copied = text }}})"
    )
    open_row(page, "SteerVad")
    page.wait("document.querySelector('dialog .copy')")
    page.run("document.querySelector('dialog .copy').click()")
    page.wait("window.copied")
    assert page.run("window.copied") == "lightning test -c configs/systems/steervad.yaml --seed_everything 0"


@needs_browser
def test_the_keyboard_reaches_and_works_everything(page: Page) -> None:
    reached = []
    for _ in range(40):
        page.press("Tab")
        told = page.run("(e => e.id || e.className || e.textContent.trim())(document.activeElement)")
        outline = page.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", told
        reached.append(told)
        if told == "open":
            break
    assert {"skip", "filter-dataset", "filter-supervision", "filter-protocol", "filter-text"} <= set(reached)
    assert any("dt-column-order" in told for told in reached)  # the heads, each a button
    page.press("Enter")
    page.wait("document.querySelector('dialog').open && document.querySelector('dialog .main-svg')")
    assert page.run("document.querySelector('dialog').contains(document.activeElement)")
    page.press("Tab", 2)
    assert page.run("document.querySelector('dialog').contains(document.activeElement)")
    page.press("Escape")
    page.wait("!document.querySelector('dialog').open")
    assert page.run("document.activeElement.className") == "open"
    page.run("[...document.querySelectorAll('#table-1 thead .dt-column-order')][2].focus()")
    page.press("Enter")
    page.wait("document.querySelectorAll('#table-1 thead th')[2].getAttribute('aria-sort')")


@needs_browser
def test_a_phone_never_scrolls_sideways(page: Page, tmp_path: Path) -> None:
    page.resize(375, 700)
    wide = "document.documentElement.scrollWidth"
    assert page.run(wide) <= 375
    page.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert page.run(wide) <= 375
    open_row(page, "HiProbe")
    page.wait("document.querySelectorAll('dialog .chart .main-svg').length >= 9")
    assert page.run("document.querySelector('dialog').scrollWidth") <= 375
    assert page.run(
        "[...document.querySelectorAll('dialog .chart')].every(c => c.getBoundingClientRect().right <= 375)"
    )


@needs_browser
def test_dark_is_dark_and_readable_in_both(page: Page) -> None:
    def light_of(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = {}
    for dark in (False, True):
        page.resize(1280, 900, dark=dark)
        paper[dark] = light_of(page.run("getComputedStyle(document.body).backgroundColor"))
        for part in ("body", "caption", "td small", "button.open", ".lost", ".mark", "#filters label", ".apart"):
            ink = light_of(page.run(f"getComputedStyle(document.querySelector('{part}')).color"))
            light, deep = max(ink, paper[dark]), min(ink, paper[dark])
            assert (light + 0.05) / (deep + 0.05) >= 4.5, (part, dark)  # what WCAG 2.2 asks of text, level AA
    assert paper[True] < 0.05
    assert paper[False] > 0.8


@needs_browser
def test_everything_to_operate_has_a_name(page: Page) -> None:
    operated = "[...document.querySelectorAll('button, select, input, [role=region], form, table')]"
    named = (
        "e.getAttribute('aria-label') || e.labels?.length || e.caption || (e.matches('button') && e.textContent.trim())"
    )
    assert page.run(f"{operated}.filter(e => !({named})).map(e => e.outerHTML)") == []
    identities = page.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(set(identities)) == len(identities)


@needs_browser
def test_a_complaint_and_a_request_would_be_noticed(browser: Page, file: Path) -> None:
    browser.events.clear()
    browser.open(file)
    browser.run("console.error('heard')")
    browser.run("setTimeout(() => { throw new Error('caught') })")
    browser.run("new Promise(done => setTimeout(done, 20))")
    assert ["heard" in told or "caught" in told for told in browser.complaints()] == [True, True]
    browser.run("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert "violates the following Content Security Policy" in browser.complaints()[-1]  # refused before it is sent


@needs_browser
def test_a_method_called_script_stays_a_name(page: Page) -> None:
    assert "<script>alert(1)</script>" in page.run(NAMES_SHOWN)
    open_row(page, "alert(1)")
    assert page.run("document.querySelector('dialog h2').textContent") == "<script>alert(1)</script>"


class Scripts(HTMLParser):
    """The script elements of a page, by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.name: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.name = dict(attrs).get("id") or str(len(self.found))
            self.found[self.name] = ""

    def handle_endtag(self, tag: str) -> None:
        self.name = None

    def handle_data(self, data: str) -> None:
        if self.name is not None:
            self.found[self.name] += data


def test_no_text_ends_the_data_early(file: Path) -> None:
    scripts = Scripts(file.read_text()).found
    names = [entry["name"] for entry in json.loads(scripts["entries"])]
    assert "<script>alert(1)</script>" in names
    assert len(names) == 14
    assert not [text for text in scripts.values() if text.startswith("alert")]


def test_the_page_has_what_is_not_in_the_tables(file: Path) -> None:
    text = file.read_text()
    assert "<b>Lavida</b> on ubnormal, seed 0: failed<pre>CUDA out of memory\n  at line 3</pre>" in text
    assert "<b>DualEncoder</b> on uca, seed 0: not there yet" in text


def test_the_page_is_small_and_names_no_other_place(file: Path) -> None:
    text = file.read_text()
    assert file.stat().st_size < 3_500_000
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)[^"']*["']""", text)


def test_a_missing_library_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"itables/html/none\.js: not there.*pip install itables"):
        leaderboard_page._library("itables", "html/none.js")
    with pytest.raises(FileNotFoundError, match=r"pip install no_such_package"):
        leaderboard_page._library("no_such_package", "x.js")
