# SPDX-License-Identifier: Apache-2.0
"""What ``cepheid status`` prints, at several widths, with and without Unicode and colours."""

import io

import pytest
from rich.console import Console

from cepheid.terminal import page, view
from cepheid.terminal.shapes import ASCII, UNICODE, choose
from tests.overviews import change, document, pause, run, task, under_way

LONGEST = "cleanup_running_deleted_instances"
WIDTHS = (60, 80, 110, 150, 200)


def shown(found, width=80, shapes=UNICODE, changes=8, **options):
    """Return the lines that are printed."""
    encoding = "utf-8" if shapes.is_unicode else "ascii"
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    page.show(Console(file=stream, width=width, **options), found, shapes, changes)
    stream.seek(0)
    return stream.read().splitlines()


def table(found, width=80, shapes=UNICODE):
    """Return the lines of the tasks alone."""
    lines = shown(found, width, shapes)
    return lines[lines.index("") + 1 : lines.index("Newest changes") - 1]


def line_of(lines, word):
    (line,) = [line for line in lines if word in line.split()]
    return line.rstrip()


def busy():
    """Return an overview with something of everything."""
    return document(
        task(LONGEST, run=under_way(LONGEST, progress=(41, 80))),
        task("poll_volume_usage", pause=pause("poll_volume_usage"), next_run_seconds=7200.0),
        task("sync_power_states", spacing_seconds=600.0, next_run_seconds=200.0),
        task("watch_raid"),
        task("count_sheep", state="failed", reason="the module sheep is missing"),
        task("acme", state="disabled", reason="not named in enabled_tasks"),
        runs=[
            run(3, "sync_power_states", 6, counters={"instances": 12, "done": 2}),
            run(2, "watch_raid", 2, outcome="failed", error="OSError: no such array"),
            run(1, "sync_power_states", 16, counters={"instances": 12}),
        ],
        changes=[
            change(2, "sync_power_states"),
            change(1, "stop", outcome="failed", error="libvirtError: no", after=None),
        ],
        pauses=[pause("poll_volume_usage")],
    )


def test_the_first_line_says_that_all_is_well():
    lines = shown(document(task("far"), runs=[run(1, "far")]))
    assert lines[0] == "▪ host1: all is well"
    assert lines[1] == (
        "version 0.1.0, pid 4711, up 4 h, last hour: 1 run, 0 changes, 12:00:00 UTC"
    )


def test_the_first_line_says_how_much_is_not_well_and_the_next_what():
    lines = shown(busy())
    assert lines[0] == "✖ host1 is failing: 2 errors, 1 warning"
    assert lines[2:5] == [
        "  ✖ count_sheep: failed: the module sheep is missing",
        "  ✖ watch_raid: its last run failed: OSError: no such array",
        "  ▲ poll_volume_usage: paused by alice until 2026-11-23 14:00 UTC: a new switch",
    ]


def test_a_task_that_waits_shows_its_last_run_its_hour_and_when_it_is_next():
    mark, name, outcome, hour, *rest = line_of(table(busy()), "sync_power_states").split()
    assert (mark, name, outcome) == ("▪", "sync_power_states", "ok")
    assert rest == ["3", "min", "10", "min"]
    assert hour.strip("·") == "▪·◆"


def test_a_task_that_runs_shows_how_far_it_is():
    words = line_of(table(busy()), LONGEST).split()
    assert words == [
        "▶",
        LONGEST,
        "running",
        "2",
        "min",
        "████░░░░░",
        "41/80",
        "12",
        "s",
        "60",
        "s",
    ]


def test_where_the_total_is_not_known_it_says_how_many_are_done():
    found = document(task("far", run=under_way("far", progress=(7, None))))
    assert "7 done" in line_of(shown(found), "far")


def test_a_task_that_runs_and_says_nothing_of_it_shows_its_hour():
    found = document(
        task("far", run=under_way("far")),
        runs=[run(1, "far", 2, outcome="running", duration_seconds=None)],
    )
    assert line_of(shown(found, 200), "far").split("·")[-1].split()[0] == "▶▶"


def test_a_wide_terminal_is_told_more():
    found = busy()
    narrow, wide = (line_of(table(found, width), "sync_power_states") for width in (80, 200))
    assert "6 min ago" not in narrow
    assert "6 min ago" in wide
    assert wide.endswith("done 2, instances 12")
    assert len(wide.split("2.00 s")[1].split()[0]) == 60  # a character for each minute


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shapes", [UNICODE, ASCII])
def test_no_line_is_wider_than_the_terminal_and_each_task_has_one(width, shapes):
    lines = shown(busy(), width, shapes)
    assert max(len(line) for line in lines) <= width
    assert sum(line.split()[1:3] == ["sync_power_states", "ok"] for line in lines) == 1


def test_changes_are_shown_with_before_and_after_newest_first():
    lines = shown(busy())
    at = lines.index("Newest changes")
    assert lines[at + 1 : at + 5] == [
        "11:30:00 ▪ power_state running → shutdown  sync_power_states",
        "           3f2c1d0e  web-7: its guest is shutdown",
        "11:30:00 ✖ power_state running → - (failed: libvirtError: no)  stop",
        "           3f2c1d0e  web-7: its guest is shutdown",
    ]


def test_what_failed_again_and_again_is_shown_once_with_how_often_and_since_when():
    failed = [
        change(
            number,
            "far",
            outcome="failed",
            error="busy",
            started_at=f"2026-11-23T11:{number}:00.000000",
        )
        for number in (40, 30, 20)
    ]
    lines = shown(document(changes=failed))
    assert lines[lines.index("Newest changes") + 1 :][:3] == [
        "11:40:00 ✖ power_state running → shutdown (failed 3 times since 11:20:00: busy)…",
        "           3f2c1d0e  web-7: its guest is shutdown",
        "",
    ]


def test_a_wide_terminal_has_a_change_on_one_line_with_the_whole_uuid():
    (line,) = [line for line in shown(busy(), 200) if "running → shutdown" in line]
    assert line == (
        "11:30:00 ▪ power_state running → shutdown  sync_power_states  "
        "3f2c1d0e-0000-4000-8000-000000000001  web-7: its guest is shutdown"
    )


def test_of_a_change_of_many_fields_each_is_shown():
    found = change(1, "far", before={"vcpus": 2, "ram": 512}, after={"vcpus": 3, "ram": 768})
    (made,) = document(changes=[found])["changes"]
    assert view.values(made, UNICODE) == "vcpus 2 → 3, ram 512 → 768"


def test_of_a_long_change_the_fields_are_shown_that_were_not_cut_off():
    fields = {f"field_{number}": number for number in range(100)}
    found = change(1, "far", before=fields, after=dict.fromkeys(fields, 0))
    (made,) = document(changes=[found])["changes"]
    assert view.values(made, UNICODE).startswith("field_0 0 → 0, field_1 1 → 0, field_2 2 → 0")


def test_a_change_of_another_day_has_its_day():
    found = document(changes=[change(1, "far", started_at="2026-11-21T23:59:00.000000")])
    assert shown(found)[-4].startswith("11-21 23:59 ▪ power_state")


def test_no_more_changes_than_wanted():
    found = document(changes=[change(number, "far") for number in range(9, 0, -1)])
    assert sum("power_state" in line for line in shown(found, changes=3)) == 3
    assert "Newest changes" not in shown(found, changes=0)


def test_an_operators_command_shows_how_far_it_is():
    assert "Operators' commands" not in shown(document())
    lines = shown(document(under_way_now=[under_way("stop", trigger="operator", progress=(2, 4))]))
    line = lines[lines.index("Operators' commands") + 1]
    assert line == f"▶ stop, 2 min {'█' * 13}{'░' * 13} 2/4"


def test_drivers_and_tasks_that_are_not_active_are_named_those_for_one_reason_together():
    why = {"state": "disabled", "reason": "not named in enabled_tasks"}
    lines = shown(document(task("near", **why), task("far", **why)), 100)
    assert lines[-2:] == [
        "Drivers: database sqlalchemy",
        "Not active (disabled, not named in enabled_tasks): near, far",
    ]


def test_native_calls_are_counted_where_there_are_any():
    call = {"name": "virDomainCreate", "seconds": 70.0, "abandoned": True}
    lines = shown(document(native_calls=[call], native_calls_queued=3))
    assert "Native calls: 1 under way, 1 of them abandoned, 3 waiting" in lines


def test_without_unicode_all_is_ascii():
    found = busy()
    found["changes"][0]["reason"] = "Zürich…"
    lines = shown(found, shapes=ASCII)
    assert "".join(lines).isascii()
    assert line_of(table(found, shapes=ASCII), LONGEST).split()[5] == "####....."
    assert any("Z?rich..." in line for line in lines)


def test_what_others_wrote_cannot_write_to_the_terminal():
    error = "evil \x1b[2J\x1b]0;title\x07 \u202e[red]x[/red]"
    lines = shown(document(task("far"), runs=[run(1, "far", outcome="failed", error=error)]))
    assert "evil ?[2J?]0;title? ?[red]x[/red]" in lines[2]


def test_a_long_error_goes_on_below():
    lines = shown(document(task("far"), runs=[run(1, "far", outcome="failed", error="x " * 60)]))
    assert lines[2].startswith("  ✖ far: its last run failed: x x")
    assert lines[3].startswith("    x x")
    assert not any(line.endswith(" ") for line in lines[:5])


def test_a_pipe_gets_no_escape_sequences():
    assert "\x1b" not in "".join(shown(busy()))


def test_a_terminal_without_colours_shows_the_same_words_and_shapes():
    plain = shown(busy())
    coloured = shown(busy(), force_terminal=True, color_system="standard")
    assert "\x1b[" in "".join(coloured)
    without = shown(busy(), force_terminal=True, color_system="standard", no_color=True)
    assert not any(f"[3{number}m" in line for line in without for number in range(1, 8))
    assert len(coloured) == len(without) == len(plain)


def test_the_brief_line_names_the_first_of_what_is_wrong():
    assert view.brief(document(task("far")), UNICODE) == "▪ host1: all is well"
    assert view.brief(busy(), ASCII) == (
        "X host1 is failing: 2 errors, 1 warning: count_sheep: failed: the module sheep is "
        "missing; and 2 more"
    )
    gone = {"level": "error", "task": "", "text": "Nobody answers."}
    health = {"state": "unknown", "points": [gone, gone]}
    assert view.brief({**busy(), "health": health}, ASCII) == (
        "X host1: no agent answers: Nobody answers; and 1 more"
    )


@pytest.mark.parametrize(
    ("encoding", "terminal", "is_terminal", "chosen"),
    [
        ("utf-8", "xterm-256color", True, UNICODE),
        ("UTF8", "dumb", False, UNICODE),
        ("utf-8", "dumb", True, ASCII),
        ("utf-8", "linux", True, ASCII),
        ("ascii", "xterm", True, ASCII),
        ("iso8859-1", "xterm", False, ASCII),
    ],
)
def test_the_shapes_are_those_that_the_terminal_has(encoding, terminal, is_terminal, chosen):
    assert choose(encoding, terminal, is_terminal) is chosen
