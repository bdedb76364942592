"""The dashboard in a browser: what happens is seen as it happens, and what is clicked takes effect."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from astropy.io import fits
from axe_playwright_python.async_playwright import Axe
from house import ROOT
from playwright.async_api import Page, async_playwright, expect

from absurd import AbsurdClient, RunContext, Workflow, executor, inspection, tokens
from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.tasks.cutout import portrait
from absurd.testing import drain
from absurd.web.app import build_app

CHROMIUM = Path("/usr/bin/chromium")
SHOTS = ROOT / "build" / "screenshots"
"""What the pages looked like, kept for people to look at."""
SWITCHES = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
SIZES = {"phone": (375, 760), "desk": (1280, 800)}
PIXEL = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0"
    b"\5\0\1\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82"
)

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")


@executor("look.picture", runs_in="thread")
def picture(ctx: RunContext, params: dict[str, str]) -> dict[str, float]:
    """Write a file that a page can show."""
    Path(ctx.artifact(params["out"], kind="image/png")).write_bytes(PIXEL)
    return {"rms_jy": 0.002}


@executor("look.image", runs_in="thread")
def image(ctx: RunContext, params: dict[str, str]) -> None:
    """Write a small image of the sky, and tell of it."""
    cards: dict[str, str | float] = {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRVAL1": 10.0, "CRVAL2": 50.0}
    cards |= {"CRPIX1": 16, "CRPIX2": 16, "CDELT1": -0.01, "CDELT2": 0.01, "BUNIT": "Jy/beam"}
    pixels = np.arange(32 * 32, dtype=np.float32).reshape(32, 32)
    fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(ctx.artifact(params["out"]))
    ctx.product("image", {"path": params["out"], "ra": 10.0, "declination": 50.0, "rms_jy": 0.002})


@executor("look.break", runs_in="thread")
def break_(ctx: RunContext, params: dict[str, str]) -> None:
    """Fail."""
    raise ValueError("no star was found")


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[str]:
    """The interface on a port of its own, in this loop."""
    assert settings.database_url is not None
    app = build_app(settings, AsyncDatabase(settings.database_url), portrait)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    served = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await served


@asynccontextmanager
async def browsing(address: str, size: str, scheme: str) -> AsyncIterator[Page]:
    """A page of a browser; whatever its console tells of errors fails the test."""
    width, height = SIZES[size]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        context = await browser.new_context(
            base_url=address,
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page = await context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        yield page
        await browser.close()
        assert [] == wrong


async def look(page: Page, name: str) -> None:
    """Keep a picture of a page; it is no wider than the screen, and axe finds nothing that shuts anybody out."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{page.url} is {wide} pixels wider than the screen"
    found = (await Axe().run(page)).response["violations"]
    told = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
    assert [] == told, page.url


async def log_in(page: Page, token: str) -> None:
    """As a person does it, by keyboard alone."""
    await page.goto("/tasks")
    await expect(page.get_by_label("Token")).to_be_focused()
    await page.keyboard.type(token)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Tasks", level=1)).to_be_visible()


async def test_a_workflow_ends_before_ones_eyes_and_a_dead_letter_is_requeued(
    settings: Settings, tmp_path: Path
) -> None:
    """On a phone, in the dark: the graph turns as the tasks end, and what failed is pending again after one click."""
    async with AbsurdClient(settings=settings) as client, serving(settings) as address:
        workflow = Workflow("night")
        first = workflow.task(picture, {"out": str(tmp_path / "sky.png")}, queue="sky")
        last = workflow.task(break_, {}, after=first, queue="sky", max_attempts=1)
        run = await client.spawn_workflow(workflow)
        async with browsing(address, "phone", "dark") as page:
            async with page.expect_response(lambda answer: answer.url.endswith("/api/v1/events")) as heard:
                await page.goto(f"/workflows/{run.id}")
            assert 200 == (await heard.value).status
            graph = page.get_by_role("group", name="Which task waits for which")
            await expect(graph.locator("text.small", has_text="pending")).to_be_visible()
            await expect(graph.locator("text.small", has_text="blocked")).to_be_visible()
            await page.evaluate("window.mark = 'not loaded again'")

            await drain("sky", settings, executors=[picture, break_])

            await expect(page.locator("#head")).to_contain_text("failed", timeout=15_000)
            await expect(graph.locator("text.small", has_text="completed")).to_be_visible()
            assert "not loaded again" == await page.evaluate("window.mark")
            await look(page, "workflow-phone")

            await page.get_by_role("link", name="Dead letters").click()
            await expect(page.locator("#letters")).to_contain_text("no star was found")
            await look(page, "dead-letters-phone")
            await page.get_by_role("button", name=re.compile("^Requeue …")).click()
            await expect(page.get_by_role("status")).to_contain_text("Requeued: 1")
            assert "pending" == (await client.get_task(run.tasks[last.name])).state
            for path in ("/", "/tasks", "/queues/sky", "/workflows", "/schedules", "/workers", "/alerts", "/nowhere"):
                await page.goto(path)
                await look(page, f"{path.strip('/').replace('/', '-') or 'overview'}-phone")


async def test_a_night_is_watched_and_mended_from_a_browser(settings: Settings, tmp_path: Path) -> None:
    """Log in, see a task end without loading its page again, open its picture, pause a queue and let it go on."""
    async with AbsurdClient(settings=settings) as client, serving(settings) as address:
        token = tokens.new_token()
        await client.run(tokens.create_token("night-shift", "operator", token))
        task = await client.spawn(picture, {"out": str(tmp_path / "sky.png")}, queue="sky")
        async with browsing(address, "desk", "light") as page:
            await log_in(page, token)
            await look(page, "tasks")
            await page.get_by_role("link", name=f"…{str(task)[-8:]}").click()
            head = page.locator("#head")
            await expect(head).to_contain_text("pending")
            await page.evaluate("window.mark = 'not loaded again'")

            await drain("sky", settings, executors=[picture, break_])

            await expect(head).to_contain_text("completed", timeout=15_000)
            assert "not loaded again" == await page.evaluate("window.mark")
            shown = page.get_by_role("img", name="Picture of sky.png")
            await shown.scroll_into_view_if_needed()
            await expect(shown).to_have_js_property("naturalWidth", 1)
            await look(page, "task")

            await page.get_by_role("link", name="Queues").first.click()
            await page.get_by_role("button", name="Pause queue sky").press("Enter")
            await expect(page.get_by_role("status")).to_contain_text("Queue sky is paused")
            assert [True] == [each["paused"] for each in await client.run(inspection.list_queues())]
            await look(page, "queues")
            await page.get_by_role("button", name="Resume queue sky").click()
            await expect(page.get_by_role("status")).to_contain_text("goes on")
            assert [False] == [each["paused"] for each in await client.run(inspection.list_queues())]


async def test_the_sky_leads_to_a_picture_of_a_fits_file(settings: Settings, tmp_path: Path) -> None:
    """From the map to the product, whose image is painted for the page; and a file that has changed is not shown."""
    out = tmp_path / "night.fits"
    async with AbsurdClient(settings=settings) as client, serving(settings) as address:
        await client.spawn(image, {"out": str(out)}, queue="sky")
        await drain("sky", settings, executors=[image], check=True)
        async with browsing(address, "desk", "dark") as page:
            await page.goto("/sky")
            await expect(page.get_by_role("group", name="All of the sky")).to_be_visible()
            await look(page, "sky")
            await page.locator("#map a").first.press("Enter")
            await expect(page.get_by_role("heading", name="night.fits")).to_be_visible()
            shown = page.get_by_role("img", name="Picture of night.fits")
            await expect(shown).to_have_js_property("naturalWidth", 512)
            await look(page, "product")
            place = await shown.get_attribute("src")
            assert place is not None

            out.write_bytes(out.read_bytes()[:-2880])

            assert 409 == (await page.request.get(place)).status
