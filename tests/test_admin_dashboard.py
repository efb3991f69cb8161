"""The dashboard in a real Chromium: its figures are the API's, it lives, and it asks nobody else."""

import shutil
import time

import pytest

import bitactor as ba
from bitactor.config import Settings
from tests.admin_service import Stub, ask, served, trades

NONE = "\u2013"  # what a cell without a value shows
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
if CHROMIUM is None:
    pytest.skip("no chromium here: Debian's package chromium has it", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def service():
    stub = Stub()
    stub.names = {ba.text_key("AAPL"): "AAPL"}
    signals = trades(4000)
    signals["key"][::10] = ba.text_key("AAPL")
    stub.apply(signals)
    yield stub
    stub.engine.close()


def opened(browser, admin, **options):
    """A page with what went wrong on it: console messages and requests to other hosts."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.wrong = []
    page.on(
        "console", lambda message: page.wrong.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda sent: page.wrong.append(sent.url) if not sent.url.startswith(admin.url) else None)
    page.goto(admin.url)
    return page


def figure(page, name):
    return int(page.locator(f"[data-figure={name}]").get_attribute("data-exact"))


def decimals(rows, column):
    """As many as the finest number of the column needs with nine digits."""
    return max(len(f"{row[column]:.9g}".partition(".")[2]) for row in rows)


def until(page, holds, seconds=15):
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, page.inner_text("body")[:2000]
        page.wait_for_timeout(100)


def test_figures_equal_those_of_the_api_and_follow_it(browser, service):
    with served(service) as admin:
        page = opened(browser, admin)
        page.locator("#table tbody tr").first.wait_for()
        told = ask(admin.port, "/api/v1/statistics").json()["statistics"]
        assert figure(page, "accepted") == told["engine"]["accepted"] == 4000
        assert figure(page, "processed") == told["engine"]["processed"]
        assert figure(page, "keys") == sum(actor["keys"] for actor in told["engine"]["actors"])
        assert figure(page, "log-lag") == 1000
        assert page.inner_text("#health-word") == "ready" and "position 4,000" in page.inner_text("#facts")
        crc = page.locator("#drops td[data-reason=crc]").inner_text()
        assert int(crc) == told["ingest"]["refused"]["crc"]
        service.apply(trades(1500, keys=5))
        service.log = type(service.log)(*(getattr(service.log, n) for n in type(service.log).__slots__))
        until(page, lambda: figure(page, "accepted") == 5500)
        until(page, lambda: page.locator("#throughput polyline").count() == 3)
        assert page.wrong == []


def test_a_live_table_shows_the_rows_of_the_api_sorted_filtered_and_cut(browser, service):
    with served(service) as admin:
        page = opened(browser, admin)
        page.get_by_role("button", name="volume").click()
        until(page, lambda: page.locator("th[aria-sort=descending]").count() == 1)
        page.select_option("#table-limit", "10")
        until(page, lambda: page.locator("#table tbody tr").count() == 10)
        rows = ask(admin.port, "/api/v1/actors/vwap/table?sort=-volume&limit=10&integers=text").json()["rows"]
        shown = [row.split("\t") for row in page.locator("#table tbody").inner_text().split("\n")]
        wanted = [[row[0], row[1] or NONE, f"{row[2]:,.{decimals(rows, 2)}f}", f"{int(row[3]):,}"] for row in rows]
        assert [row[:4] for row in shown] == wanted
        assert rows[0][0] == str(ba.text_key("AAPL")), "more digits than a double has"
        page.fill("#table-filter", "key=AAPL")
        page.press("#table-filter", "Enter")
        until(page, lambda: page.locator("#table tbody tr").count() == 1)
        page.fill("#table-filter", "nonsense")
        page.press("#table-filter", "Enter")
        until(page, lambda: "write a comparison" in page.inner_text("#table-said"))
        page.wrong[:] = [one for one in page.wrong if "400" not in one]  # the browser tells of the refusal
        assert page.wrong == []


def test_sql_answers_and_says_what_is_wrong(browser, service):
    with served(service) as admin:
        page = opened(browser, admin)
        page.fill("#sql", "select name, volume from vwap where name is not null")
        page.press("#sql", "Control+Enter")
        until(page, lambda: "1 rows" in page.inner_text("#sql-said"))
        volume = service.engine.state("vwap", ba.text_key("AAPL")).volume
        assert page.locator("#sql-rows tbody").inner_text().split("\t") == ["AAPL", f"{volume:,}"]
        page.fill("#sql", "copy vwap to 'x'")
        page.click("#sql-form button")
        until(page, lambda: "one SELECT is what may be asked" in page.inner_text("#sql-said"))


def test_a_token_is_asked_for_and_a_lost_service_is_told(browser, tmp_path):
    token = tmp_path / "token"
    token.write_text("correct-horse-battery-staple")
    stub = Stub(Settings(admin={"port": 0, "token_file": token}))
    stub.apply(trades(10))
    with served(stub) as admin:
        page = opened(browser, admin)
        page.wait_for_selector("#token-form:not([hidden])")
        assert page.evaluate("document.activeElement.id") == "token"
        page.keyboard.type("not-the-token-of-this-service")
        page.keyboard.press("Enter")
        until(page, lambda: "not known" in page.inner_text("#token-form"))
        page.fill("#token", "correct-horse-battery-staple")
        page.keyboard.press("Enter")
        until(page, lambda: page.locator("[data-figure=accepted]").count() == 1)
        assert figure(page, "accepted") == 10 and not page.is_visible("#token-form")
        stub.unready("compiling and recovering")
        until(page, lambda: "compiling and recovering" in page.inner_text("#notice"))
    until(page, lambda: "cannot be reached" in page.inner_text("#notice"))
    assert page.inner_text("#health-word") == "unreachable" and figure(page, "accepted") == 10
    stub.engine.close()


def test_it_fits_a_phone_follows_the_theme_and_takes_the_keyboard(browser, service):
    with served(service) as admin:
        page = opened(browser, admin, viewport={"width": 360, "height": 740}, color_scheme="dark")
        page.locator("#table tbody tr").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        colour = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(colour)
        page.click("#theme")
        light = page.evaluate(colour)
        assert dark != light and page.inner_text("#theme") == "Theme: light"
        page.reload()
        assert page.evaluate(colour) == light, "the choice stays"
        page.locator("#table tbody tr").first.wait_for()
        reached = set()
        page.evaluate("document.activeElement.blur()")
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert {"pause", "theme", "table-actor", "table-filter", "volume", "sql"} <= reached
        assert page.wrong == []
