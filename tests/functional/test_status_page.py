# SPDX-License-Identifier: Apache-2.0
"""The page, as Chromium shows it, of real agents."""

import datetime
import importlib.metadata
import os
import re
import signal

import pytest
from playwright.sync_api import expect

from cepheid.journal import FILE_NAME, Journal
from cepheid_plugins.compute import power_state
from tests.functional.agents import Installation
from tests.functional.browser import PHONE, WIDE, Visit, chromium
from tests.functional.processes import PATIENCE_SECONDS, wait_until
from tests.functional.servers import free_port
from tests.functional.status_pages import StatusServer
from tests.journals import fill
from tests.worlds import node_xml

pytestmark = pytest.mark.functional

#: Bytes that the page, and then its data, may have. Over a slow line, 100 kB take a second.
MAX_PAGE_BYTES = 96 * 1024
MAX_DATA_BYTES = 128 * 1024
MAX_UPDATE_BYTES = 48 * 1024

#: Elements that the whole page may have: what a phone lays out without effort.
MAX_ELEMENTS = 6000

CHANGE = '''
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Change one thing."""

    @periodic_task(spacing=3600)
    def change_it(self, context):
        file = self.agent.state_path / "it"
        context.change("content", target="it", before=None, after="new", reason="it is due",
                       do=lambda: file.write_text("new"))
'''

TICK = '''
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Tick."""

    @periodic_task(spacing=1, run_immediately=True)
    def tick(self, context):
        context.count("seen")
'''

#: Runs until a file is there.
LONG = '''
import time
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Run until a file is there."""

    @periodic_task(spacing=3600)
    def go_on(self, context):
        context.progress(30, 120)
        while not (self.agent.state_path / "enough").exists():
            time.sleep(0.05)
'''

MARKUP = "<script>window.caught = 1</script><img src=x onerror='window.caught = 1'>"
SECRET = "mysql+pymysql://nova:s3cret@db/nova"

HOSTILE = f'''
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Do {MARKUP}."""

    @periodic_task(spacing=3600, run_immediately=True)
    def hostile(self, context):
        context.change("{MARKUP}", target="{MARKUP}", before="{MARKUP}", after={{"{SECRET}": 1}},
                       reason="{MARKUP}", do=lambda: None)
        raise RuntimeError("{MARKUP} at {SECRET}")
'''


@pytest.fixture(scope="module")
def browser():
    """Chromium, one for all."""
    with chromium() as running:
        yield running


@pytest.fixture
def start(tmp_path, distributions):
    """Start an agent of the tasks that were added; return it and its server."""
    state = tmp_path / "state"
    state.mkdir()
    agent = Installation(state, "")

    def start(settings="", port=0):
        agent.conf.write_text(
            f"[DEFAULT]\nstate_path = {state}\nhost = host1\nperiodic_fuzzy_delay = 0\n"
            f"log_file = {agent.log}\nenabled_tasks = *\ndisabled_tasks = bundled\n"
            f"[status]\nenabled = true\nport = {port}\n{settings}"
        )
        agent.environment = {**os.environ, "PYTHONPATH": str(distributions.path)}
        agent.start_agent()
        return agent, StatusServer(state, agent.log)

    yield start
    agent.close()


@pytest.fixture
def visit(browser):
    """Open the page of a server; afterwards, look whether all was as it should be."""
    visits = []

    def visit(server, task, **options):
        made = Visit(browser, f"http://127.0.0.1:{server.port}/", **options)
        visits.append(made)
        if task is not None:
            expect(made.page.locator(f"#task-{task}")).to_be_visible()
        return made

    yield visit
    for made in visits:
        made.close()
        assert made.errors == []
        assert made.hosts() == {made.url.split("/")[2]}
        assert not any("token" in url for url in made.requests)


def button(page, label, task):
    return page.get_by_role("button", name=f"{label}: {task}")


def give_token(page, token):
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Use it").click()


def state_of(page, task):
    return page.locator(f"#task-{task} .state")


def result(page, task):
    return page.locator(f"#task-{task}-more .result")


def outcomes(agent, task):
    return [row["Outcome"] for row in agent.rows("task", "history", task)]


# A host as it may be: seventeen tasks, a thousand guests, a day of runs.


def utcnow():
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


@pytest.fixture(scope="module")
def full_host(tmp_path_factory):
    path = tmp_path_factory.mktemp("full")
    (path / "node.xml").write_text(node_xml([power_state.RUNNING] * 1000))
    host = Installation(
        path,
        f"enabled_tasks = bundled\n[instance_usage_audit]\nenabled = true\n[hypervisor]\nuri = test:///{path}/node.xml\n"
        "[run_pending_deletes]\nspacing = 3600\n"  # what is filled in stays its last run
        "[status]\nenabled = true\nport = 0\n",
    )
    host.run("db", "sync")
    host.run("host", "adopt")
    names = sorted(
        point.name
        for point in importlib.metadata.distribution("cepheid").entry_points
        if point.group == "cepheid.tasks"
    )
    journal = Journal(path / FILE_NAME)
    host.filled_at = now = utcnow()
    fill(journal, names, now, 24 * 60, changes=5000)
    for name in names:
        journal.set_last_run(name, now)
    journal.close()
    host.start_agent()
    yield host, StatusServer(path, host.log), names
    host.close()


def test_opens_small_and_at_once_on_a_host_with_a_thousand_guests_and_a_day_of_runs(
    full_host, visit
):
    _, server, names = full_host
    page = visit(server, names[-1]).page
    expect(page.locator("table.tasks > tbody")).to_have_count(17)
    marks = page.locator(".tasks .run .mark")
    wait_until(lambda: marks.count() >= 17 * 55)
    assert marks.count() <= 17 * 65
    sizes, elements, times = page.evaluate(
        """() => [
            ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
                .map((entry) => entry.encodedBodySize),
            document.querySelectorAll("*").length,
            [performance.getEntriesByType("paint").map((entry) => entry.startTime).at(-1),
             performance.getEntriesByType("resource")[0].responseEnd],
        ]"""
    )
    print(f"page {sizes[0]} bytes, data {sizes[1]} bytes, {elements} elements,")
    print(f"painted after {times[0]:.0f} ms, data there after {times[1]:.0f} ms")
    assert sizes[0] < MAX_PAGE_BYTES
    assert sizes[1] < MAX_DATA_BYTES
    assert all(size < MAX_UPDATE_BYTES for size in sizes[2:])
    assert elements < MAX_ELEMENTS
    # The answers after it have only what is new.
    with page.expect_request(lambda request: "after=" in request.url):
        pass


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_is_readable_in_light_and_dark_and_on_a_phone(full_host, visit, tmp_path, scheme, size):
    _, server, names = full_host
    made = visit(server, names[-1], size=size, scheme=scheme)
    page = made.page
    page.get_by_role("button", name="sync_power_states", exact=True).click()
    page.screenshot(path=tmp_path / f"{scheme}-{size[0]}.png", full_page=True)
    assert (tmp_path / f"{scheme}-{size[0]}.png").stat().st_size > 10_000
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)"
    assert dark == (scheme == "dark")
    assert made.violations() == []


def test_tells_the_timeline_in_words_to_who_does_not_see_it(full_host, visit):
    host, server, names = full_host
    page = visit(server, names[-1]).page
    lane = page.get_by_role("slider", name="Runs of run_pending_deletes in the last hour")
    wait_until(lambda: "ok" in (lane.get_attribute("aria-valuetext") or ""))
    runs, _, rest = lane.get_attribute("aria-valuetext").partition(" runs: ")
    minutes_gone = (utcnow() - host.filled_at).total_seconds() / 60
    assert int(runs) >= 58 - minutes_gone
    assert rest.endswith(" ok")
    lane.focus()
    lane.press("ArrowLeft")
    expect(lane).to_have_attribute(
        "aria-valuetext", re.compile(r"\d\d:\d\d:\d\d · ok, took 125 ms")
    )
    expect(page.get_by_role("tooltip")).to_contain_text("took 125 ms")
    lane.press("Escape")
    expect(page.get_by_role("tooltip")).to_be_hidden()


def test_shows_the_tasks_of_a_name_or_state_alone_and_any_that_a_link_leads_to(
    start, distributions, visit
):
    for name in ("count_sheep", "count_goats", "feed_dogs"):
        distributions.add_task(f"acme-{name}", name)
    agent, server = start()
    agent.run("pause", "count_goats", "--reason", "no goats")
    made = visit(server, "count_goats")
    page, shown = made.page, made.page.locator("table.tasks .main:visible .open")
    expect(page.locator("#points")).to_contain_text("'cepheid resume count_goats' ends it.")
    expect(shown).to_have_count(3)
    name, state = page.get_by_label("Part of a task's name"), page.get_by_label("State of a task")
    name.fill("COUNT")
    expect(shown).to_have_text(["count_goats", "count_sheep"])
    expect(page.locator("#filter-note")).to_have_text("2 of 3 tasks shown")
    state.select_option("Waiting")
    expect(shown).to_have_text(["count_sheep"])
    assert made.violations() == []
    page.get_by_role("link", name="count_goats").click()
    expect(shown).to_have_count(3)
    expect(page.locator("#filter-note")).to_be_empty()
    state.select_option("Paused")
    expect(shown).to_have_text(["count_goats"])
    agent.run("resume", "count_goats")
    expect(shown).to_have_count(0)
    page.get_by_role("button", name="Show all").click()
    expect(shown).to_have_count(3)
    expect(name).to_be_focused()
    name.press("Enter")
    expect(shown).to_have_count(3)


# Acting.


def test_runs_a_task_by_a_click_and_shows_what_came_of_it(start, distributions, visit):
    distributions.add_task("acme-change", "change_it", CHANGE)
    agent, server = start()
    page = visit(server, "change_it").page
    button(page, "Run now", "change_it").click()
    expect(page.get_by_role("dialog")).to_contain_text("cepheid-status-token")
    give_token(page, server.token)
    expect(result(page, "change_it")).to_contain_text("Run ok in")
    expect(result(page, "change_it")).to_contain_text("it is due")
    expect(page.locator("#changes")).to_contain_text("new")
    expect(page.locator("#said")).to_contain_text("change_it: Run ok")
    assert outcomes(agent, "change_it") == ["ok"]
    assert (agent.path / "it").read_text() == "new"
    # The token is asked for once, and is neither in the address nor kept for other tabs.
    button(page, "Run now", "change_it").click()
    wait_until(lambda: outcomes(agent, "change_it") == ["ok", "ok"])
    assert page.url.endswith("/")
    assert page.evaluate("localStorage.length") == 0
    assert server.token not in agent.read_log()


def test_a_dry_run_shows_what_would_be_changed_and_changes_nothing(start, distributions, visit):
    distributions.add_task("acme-change", "change_it", CHANGE)
    agent, server = start()
    page = visit(server, "change_it").page
    button(page, "Dry run", "change_it").click()
    give_token(page, server.token)
    expect(result(page, "change_it")).to_contain_text("1 change planned")
    assert not (agent.path / "it").exists()
    assert outcomes(agent, "change_it") == ["ok (dry run)"]


def test_a_task_that_is_configured_for_dry_runs_is_not_made_to_act(start, distributions, visit):
    distributions.add_task("acme-change", "change_it", CHANGE)
    agent, server = start("[change_it]\ndry_run = true\n")
    page = visit(server, "change_it").page
    expect(state_of(page, "change_it")).to_contain_text("dry runs only")
    button(page, "Run now", "change_it").click()
    give_token(page, server.token)
    expect(result(page, "change_it")).to_contain_text("Dry run ok in")
    assert not (agent.path / "it").exists()


def test_a_wrong_token_is_refused_and_asked_for_again(start, distributions, visit):
    distributions.add_task("acme-change", "change_it", CHANGE)
    agent, server = start()
    page = visit(server, "change_it").page
    button(page, "Run now", "change_it").click()
    give_token(page, "a-wrong-one-of-some-length")
    expect(page.get_by_role("alert")).to_have_text("That is not this agent's token.")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0
    assert outcomes(agent, "change_it") == []
    expect(button(page, "Run now", "change_it")).to_be_enabled()


def test_a_refusal_is_told(start, distributions, visit):
    distributions.add_task("acme-change", "change_it", CHANGE)
    agent, server = start()
    agent.run("pause", "change_it", "--for", "2h", "--reason", "a new switch")
    page = visit(server, "change_it").page
    expect(state_of(page, "change_it")).to_contain_text("a new switch")
    expect(page.get_by_role("region", name="Pauses")).to_contain_text("a new switch")
    button(page, "Run now", "change_it").click()
    give_token(page, server.token)
    expect(result(page, "change_it")).to_contain_text("Run refused")
    expect(result(page, "change_it")).to_contain_text("change_it is not run: paused by")


def test_asks_for_the_token_to_read_where_reading_needs_it(start, distributions, visit):
    distributions.add_task("acme-change", "change_it", CHANGE)
    _, server = start("token_for_reading = true\n")
    page = visit(server, None).page
    give_token(page, "a-wrong-one-of-some-length")
    expect(page.get_by_role("alert")).to_have_text("That is not this agent's token.")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#lost")).to_contain_text("Reading needs the agent's token.")
    page.get_by_role("button", name="Try now").click()
    give_token(page, server.token)
    expect(page.locator("#task-change_it")).to_be_visible()
    expect(page.locator("#lost")).to_be_hidden()


def test_can_be_used_with_the_keyboard_alone(start, distributions, visit):
    distributions.add_task("acme-change", "change_it", CHANGE)
    agent, server = start()
    page = visit(server, "change_it").page
    keys = page.keyboard
    keys.press("Tab")
    assert focused(page) == "Skip to the tasks"
    keys.press("Enter")
    keys.press("Tab")
    expect(page.get_by_label("Part of a task's name")).to_be_focused()
    keys.press("Tab")
    expect(page.get_by_label("State of a task")).to_be_focused()
    keys.press("Tab")
    assert focused(page) == "change_it"
    keys.press("Enter")
    expect(page.locator("#task-change_it-more")).to_contain_text("Change one thing.")
    keys.press("Tab")
    assert focused(page) == "Runs of change_it in the last hour"
    keys.press("Tab")
    assert focused(page) == "Run now: change_it"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    keys.press("Enter")
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    keys.type(server.token)
    keys.press("Enter")
    expect(result(page, "change_it")).to_contain_text("Run ok in")
    assert focused(page) == "Run now: change_it"
    assert outcomes(agent, "change_it") == ["ok"]


def focused(page):
    return page.evaluate(
        "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
    )


def test_the_dialog_and_a_result_are_accessible_too(start, distributions, visit):
    distributions.add_task("acme-change", "change_it", CHANGE)
    _, server = start()
    made = visit(server, "change_it", scheme="dark")
    button(made.page, "Dry run", "change_it").click()
    expect(made.page.get_by_role("dialog")).to_be_visible()
    assert made.violations() == []
    give_token(made.page, server.token)
    expect(result(made.page, "change_it")).to_be_visible()
    assert made.violations() == []


# Following the agent.


def test_shows_how_far_a_long_run_is_and_then_what_came_of_it(start, distributions, visit):
    distributions.add_task("acme-long", "go_on", LONG)
    agent, server = start()
    page = visit(server, "go_on").page
    button(page, "Run now", "go_on").click()
    give_token(page, server.token)
    expect(state_of(page, "go_on")).to_contain_text("running, 30 of 120")
    bar = page.get_by_role("progressbar", name="Progress of go_on")
    assert (bar.get_attribute("value"), bar.get_attribute("max")) == ("30", "120")
    expect(page.locator("#task-go_on .run.running .mark")).to_have_count(1)
    expect(button(page, "Run now", "go_on")).to_have_attribute("aria-disabled", "true")
    # Longer than the server waits: the answer is that it goes on.
    expect(result(page, "go_on")).to_contain_text("Run under way")
    (agent.path / "enough").touch()
    expect(result(page, "go_on")).to_contain_text("Run ok in")
    expect(bar).to_be_hidden()


def test_an_update_moves_no_focus_and_keeps_what_is_open(start, distributions, visit):
    distributions.add_task("acme-tick", "tick", TICK)
    distributions.add_task("acme-change", "change_it", CHANGE)
    _, server = start()
    page = visit(server, "tick", size=(1300, 400)).page
    page.get_by_role("button", name="tick", exact=True).click()
    page.locator("#inside summary").click()
    button(page, "Run now", "change_it").focus()
    page.evaluate("document.activeElement.mark = 'the same'; scrollTo(0, 240)")
    scrolled = page.evaluate("scrollY")
    lane = page.get_by_role("slider", name="Runs of tick in the last hour")
    seen = int(lane.get_attribute("aria-valuemax"))
    wait_until(lambda: int(lane.get_attribute("aria-valuemax")) >= seen + 3)
    assert page.evaluate("document.activeElement.mark") == "the same"
    assert page.evaluate("scrollY") == scrolled
    expect(page.locator("#task-tick-more")).to_be_visible()
    expect(page.locator("#inside")).to_have_attribute("open", "")


def test_says_so_when_the_agent_dies_and_comes_back_by_itself(start, distributions, visit):
    distributions.add_task("acme-tick", "tick", TICK)
    port = free_port()
    agent, server = start(port=port)
    page = visit(server, "tick").page
    page.evaluate("window.loaded = 'once'")
    first = agent.agent.pid
    expect(page.locator("#agent")).to_contain_text(f"process {first} ")
    agent.signal_agent(signal.SIGKILL)
    agent.agent.wait(PATIENCE_SECONDS)
    lost = page.locator("#lost")
    expect(lost).to_contain_text(
        re.compile(r"No answer since .*\d\d:\d\d:\d\d, showing what was last known")
    )
    expect(page.locator("#health")).to_have_text("Not known")
    expect(page.locator("#task-tick")).to_be_visible()
    expect(button(page, "Run now", "tick")).to_have_attribute("aria-disabled", "true")
    assert "grayscale" in page.evaluate("getComputedStyle(document.querySelector('main')).filter")
    start(port=port)
    expect(lost).to_be_hidden()
    expect(page.locator("#agent")).to_contain_text(f"process {agent.agent.pid} ")
    expect(button(page, "Run now", "tick")).not_to_have_attribute("aria-disabled", "true")
    assert page.evaluate("window.loaded") == "once"
    assert agent.agent.pid != first


def test_says_so_when_the_agent_hangs(start, distributions, visit):
    distributions.add_task("acme-tick", "tick", TICK)
    agent, server = start()
    page = visit(server, "tick").page
    agent.signal_agent(signal.SIGSTOP)
    expect(page.locator("#lost")).to_be_visible()
    agent.signal_agent(signal.SIGCONT)
    expect(page.locator("#lost")).to_be_hidden()


def test_texts_of_others_are_harmless_and_no_password_is_shown(start, distributions, visit):
    distributions.add_task("acme-hostile", "hostile", HOSTILE)
    distributions.add_task("acme-broken", "broken", f'raise RuntimeError("{MARKUP} {SECRET}")')
    agent, server = start()
    agent.run("pause", "hostile", "--reason", MARKUP)
    page = visit(server, "hostile").page
    expect(page.locator("#points")).to_contain_text(f"its last run failed: RuntimeError: {MARKUP}")
    expect(page.locator("#changes")).to_contain_text(MARKUP)
    expect(page.get_by_role("region", name="Pauses")).to_contain_text(MARKUP)
    expect(page.get_by_role("region", name="Not loaded")).to_contain_text("broken failed")
    expect(page.get_by_role("region", name="Not loaded")).to_contain_text(MARKUP)
    page.get_by_role("button", name="hostile", exact=True).click()
    expect(page.locator("#task-hostile-more")).to_contain_text(f"Do {MARKUP}.")
    assert page.evaluate("window.caught") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    shown = page.content() + server.get("/overview.json").text
    assert "s3cret" not in shown
    assert "nova:***@db" in shown
    # Nor where the run was asked for here.
    asked = server.run("hostile", dry_run=True)
    assert "s3cret" not in asked.text
