# SPDX-License-Identifier: Apache-2.0
"""What each key of ``cepheid top`` does, and what its screen shows at several sizes."""

import io

import pytest
from rich.console import Console

from cepheid.terminal.choice import Choice, Wish, split
from cepheid.terminal.keys import parse
from cepheid.terminal.screen import Screen
from cepheid.terminal.shapes import ASCII, UNICODE
from tests.overviews import change, document, pause, run, task, under_way

NAMES = [f"task_{number:02}" for number in range(18)]


def choice_of(*tasks, **values):
    choice = Choice()
    choice.update(document(*(tasks or [task(name) for name in NAMES]), **values))
    return choice


def press(choice, *keys):
    wishes = [choice.press(key) for key in keys]
    assert not any(wishes[:-1])
    return wishes[-1]


def drawn(choice, width=80, height=24, shapes=UNICODE, screen=None):
    """Return the lines of the screen."""
    encoding = "utf-8" if shapes.is_unicode else "ascii"
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    console = Console(file=stream, width=width, height=height)
    console.print((screen or Screen(shapes)).compose(choice, width, height))
    stream.seek(0)
    return [line.rstrip() for line in stream.read().splitlines()]


# Keys.


def test_keys_have_names_whatever_the_terminal_sends_for_them():
    assert parse("jq") == ["j", "q"]
    assert parse("\x1b[A\x1bOB\x1b[5~\x1b[1~\r\x7f") == [
        "up", "down", "page up", "home", "enter", "backspace",
    ]  # fmt: skip
    assert parse("\x1b") == ["escape"]


def test_keys_that_mean_nothing_are_left_out():
    assert parse("\x1b[15~\x1b[1;5Cä\x01") == ["ä"]


# What is chosen.


def test_a_question_about_a_pause_that_has_ended_is_not_asked_any_more():
    choice = choice_of(task("sync", pause=pause("sync")), pauses=[pause("sync")])
    press(choice, "p")
    assert "Resume it?" in choice.question
    choice.update(document(task("sync")))
    assert choice.question == ""
    assert press(choice, "y") is None


def test_what_was_asked_about_a_task_that_went_is_not_asked_about_another():
    choice = choice_of(task("check"), task("sync"))
    press(choice, "j", "r")
    assert choice.question.startswith("Run sync now?")
    choice.update(document(task("check")))
    assert (choice.selected, choice.question) == ("check", "")
    assert press(choice, "y") is None


def test_the_first_task_is_selected_and_keys_move_from_there():
    choice = choice_of()
    assert choice.selected == "task_00"
    press(choice, "j", "down", "k")
    assert choice.selected == "task_01"
    press(choice, "page down")
    assert choice.selected == "task_11"
    press(choice, "G", "j")
    assert choice.selected == "task_17"
    press(choice, "home", "up")
    assert choice.selected == "task_00"


def test_the_selection_stays_when_tasks_come_and_goes_to_the_first_when_its_task_goes():
    choice = choice_of(task("b"), task("c"))
    press(choice, "j")
    choice.update(document(task("a"), task("b"), task("c")))
    assert choice.selected == "c"
    choice.update(document(task("a"), task("b")))
    assert choice.selected == "a"


def test_tasks_are_sorted_by_name_trouble_next_run_and_time_taken():
    choice = choice_of(
        task("a", next_run_seconds=30.0),
        task("b", next_run_seconds=20.0),
        task("c", next_run_seconds=None, run=under_way("c")),
        runs=[
            run(2, "a", duration_seconds=1.0),
            run(1, "b", outcome="failed", duration_seconds=9.0),
        ],
    )
    orders = []
    for _ in range(5):
        orders.append("".join(one["name"] for one in choice.tasks))
        press(choice, "s")
    assert orders == ["abc", "bca", "bac", "bac", "abc"]
    assert choice.selected == "a"


def test_q_quits():
    assert press(choice_of(), "q") == Wish("quit")


def test_d_is_a_dry_run_at_once_and_r_asks_first():
    choice = choice_of()
    assert press(choice, "d") == Wish("run", "task_00", dry_run=True)
    assert press(choice, "r") is None
    assert choice.question == "Run task_00 now? y: run it, d: dry run, any other key: no"
    assert press(choice, "y") == Wish("run", "task_00")
    assert press(choice, "r", "d") == Wish("run", "task_00", dry_run=True)


@pytest.mark.parametrize("key", ["n", "q", "r", "enter", "escape", "down"])
def test_any_other_key_runs_nothing(key):
    choice = choice_of()
    assert press(choice, "r", key) is None
    assert (choice.question, choice.message) == ("", "task_00 is left as it is.")


@pytest.mark.parametrize(
    ("typed", "duration", "reason"),
    [
        ("2h new switch", "2h", "new switch"),
        ("1d12h", "1d12h", ""),
        ("  90m  ", "90m", ""),
    ],
)
def test_p_asks_for_how_long_and_why(typed, duration, reason):
    assert split(typed) == (duration, reason)
    choice = choice_of()
    wish = press(choice, "p", *typed, "x", "backspace", "enter")
    assert wish == Wish("pause", "task_00", False, duration, reason)
    assert choice.question == ""


@pytest.mark.parametrize("typed", ["new switch", ""])
def test_a_pause_without_an_end_is_asked_about_first(typed):
    choice = choice_of()
    assert press(choice, "p", *typed, "enter") is None
    assert choice.question == "Pause task_00 until it is resumed? y: yes, any other key: no"
    assert press(choice, "y") == Wish("pause", "task_00", False, "", typed)
    assert choice.question == ""
    assert press(choice, "p", *typed, "enter", "n") is None
    assert (choice.question, choice.message) == ("", "task_00 is left as it is.")


@pytest.mark.parametrize("typed", ["2hours new switch", "0s for nothing", "11y", "30"])
def test_what_begins_as_a_duration_and_is_none_pauses_nothing(typed):
    choice = choice_of()
    assert press(choice, "p", *typed, "enter") is None
    assert choice.message.startswith(f"{typed.split()[0]!r} is not ")
    assert choice.message.endswith("task_00 is left as it is.")
    assert choice.question == ""


def test_escape_pauses_nothing_and_q_is_a_letter_there():
    choice = choice_of()
    assert press(choice, "p", "q", "escape") is None
    assert choice.message == "task_00 is left as it is."


def test_p_on_a_paused_task_asks_whether_to_resume_it():
    choice = choice_of(task("a", pause=pause("a")))
    assert press(choice, "p") is None
    assert choice.question == (
        "a: paused by alice until 2026-11-23 14:00 UTC: a new switch. Resume it? y: yes"
    )
    assert press(choice, "y") == Wish("resume", "a")


def test_where_all_are_paused_p_says_what_ends_it():
    choice = choice_of(task("a", pause=pause("")))
    assert press(choice, "p") is None
    assert choice.message.startswith("all tasks are paused by alice")
    assert choice.message.endswith("'cepheid resume' ends that.")


def test_what_a_lost_agent_said_last_stays_and_nothing_is_run():
    choice = choice_of()
    lost = document(task("task_00"), at="2026-11-23T12:05:00.000000")
    lost["health"]["state"] = "unknown"
    choice.update(lost)
    choice.update(lost)
    assert len(choice.tasks) == len(NAMES)
    assert choice.lost_since == "2026-11-23T12:00:00.000Z"
    assert press(choice, "r") is None
    assert press(choice, "d") is None
    assert "No agent answers" in choice.message
    choice.update(document(task("task_00")))
    assert (len(choice.tasks), choice.lost_since) == (1, "")


def test_without_a_task_keys_do_nothing():
    choice = Choice()
    assert [choice.press(key) for key in ("j", "r", "d", "p", "s")] == [None] * 5


# The screen.


@pytest.mark.parametrize("shapes", [UNICODE, ASCII])
@pytest.mark.parametrize("size", [(40, 10), (80, 24), (100, 30), (200, 50)])
@pytest.mark.parametrize("count", [0, 1, 18, 60])
def test_the_screen_is_filled_and_never_more(size, count, shapes):
    tasks = [task(f"task_{number:02}") for number in range(count)]
    choice = choice_of(
        *tasks,
        task("a_lost_one", state="failed", reason="no such module " * 9),
        changes=[change(number, "task_00") for number in range(40)],
        runs=[run(number, "task_00", outcome="failed", error="no " * 99) for number in range(9)],
        under_way_now=[under_way("stop", progress=(1, 3))],
    )
    choice.update(choice.document)
    lines = drawn(choice, *size, shapes)
    assert len(lines) == size[1]
    assert max(map(len, lines)) <= size[0]
    assert lines[-1].startswith("q quit")


def test_before_the_first_answer_it_says_that_it_asks():
    lines = drawn(Choice())
    assert (len(lines), lines[-1]) == (24, "Asking the agent…")


def test_where_not_all_fit_the_selected_one_is_in_sight_and_it_says_which_are():
    choice, screen = choice_of(), Screen(UNICODE)
    for keys, first, last in ((["j"], 0, 10), (["G"], 7, 17), (["k"] * 10, 7, 17), (["k"], 6, 16)):
        press(choice, *keys)
        lines = drawn(choice, 80, 14, screen=screen)
        shown = [line.split()[1] for line in lines if " task_" in line]
        assert shown == NAMES[first : last + 1]
        assert any(f"Task ({first + 1}-{last + 1} of 18)" in line for line in lines)


def test_nothing_moves_sideways_when_the_tasks_are_scrolled():
    tasks = [task(name) for name in NAMES] + [task("x" * 30)]
    choice, screen = choice_of(*tasks), Screen(UNICODE)

    def place():
        (header,) = [line for line in drawn(choice, 80, 14, screen=screen) if "Task (" in line]
        return header.index("State")

    before = place()
    press(choice, "G")
    assert place() == before


def test_more_is_said_of_the_selected_task():
    counters = {"instances": 12, "done": 1}
    choice = choice_of(
        task("far", pause=pause("far")),
        runs=[run(1, "far", 3, trigger="operator", lateness_seconds=4.2, counters=counters)],
    )
    lines = drawn(choice)
    assert lines[-4:-1] == [
        "far: Do what is to be done.",
        "ok 3 min ago, operator, took 2.00 s, 4 s late: done 1, instances 12",
        "paused by alice until 2026-11-23 14:00 UTC: a new switch",
    ]


def test_changes_are_shown_where_there_is_room():
    choice = choice_of(task("far"), changes=[change(number, "far") for number in range(3)])
    lines = drawn(choice, 200, 30)
    assert sum("running → shutdown" in line for line in lines) == 3
    assert "Newest changes" not in drawn(choice, 200, 6)


def test_a_lost_agent_is_the_first_line():
    choice = choice_of()
    choice.lost_since = "2026-11-23T12:00:00.000Z"
    first = "✖ No agent answers since 12:00:00 UTC; this is what it said last."
    assert drawn(choice)[0] == first
