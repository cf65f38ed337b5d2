# SPDX-License-Identifier: Apache-2.0
"""Lists of plugins in a terminal: which columns there is room for, and the reasons below."""

import argparse
import importlib.metadata
import io

import pytest

from cepheid.cli import cells, lists
from cepheid.loading import Plugin

NAMES = ("Name", "State", "Reason", "Outcome", "Distribution", "Summary")
MISSING = "the Python module libvirt is missing; pip install 'cepheid[libvirt]'"
ROWS = [
    ("check", "failed", MISSING, "", "cepheid", "Check this and that."),
    ("poll", "enabled", "", "ok", "cepheid", "Poll."),
    ("sync", "failed", MISSING, "", "cepheid", "Synchronize."),
    ("tidy", "disabled", "named in disabled_tasks", "ok", "cepheid", "Tidy up."),
]
IMPORTANCE = ("Outcome", "Summary", "Distribution")


def printed(width, rows=ROWS, importance=IMPORTANCE):
    """Return the lines of a table in a terminal of this width; 0 for none."""
    out = io.StringIO()
    asked = argparse.Namespace(max_width=width, fit_width=False, print_empty=True)
    lists.FittedTable(importance).emit_list(NAMES, rows, out, asked)
    return out.getvalue().splitlines()


def columns(lines):
    return [cell.strip() for cell in lines[1].strip("|").split("|")]


def test_a_table_that_fits_or_goes_to_no_terminal_is_whole():
    for width in (0, 1000):
        lines = printed(width)
        assert columns(lines) == list(NAMES)
        assert sum(MISSING in line for line in lines) == 2


def test_columns_that_are_empty_are_left_out():
    rows = [(name, state, "", "", "", "") for name, state, *_ in ROWS]
    assert columns(printed(0, rows)) == ["Name", "State"]


@pytest.mark.parametrize(
    ("width", "kept"),
    [
        (78, ["Name", "State", "Outcome", "Distribution", "Summary"]),
        (65, ["Name", "State", "Outcome", "Summary"]),
        (49, ["Name", "State", "Outcome", "Distribution"]),
        (40, ["Name", "State", "Outcome"]),
        (25, ["Name", "State"]),
    ],
)
def test_a_table_in_a_terminal_is_no_wider_and_has_each_reason_once_below(width, kept):
    lines = printed(width)
    assert columns(lines) == kept
    table = [line for line in lines if line[0] in "+|"]
    assert max(map(len, table)) <= width
    assert [line.split()[1:5] for line in table[3:-1]] == [
        ["check", "|", "failed", "[1]"],
        ["poll", "|", "enabled", "|"],
        ["sync", "|", "failed", "[1]"],
        ["tidy", "|", "disabled", "[2]"],
    ]
    below = " ".join(line.strip() for line in lines[len(table) :])
    assert below == f"[1] {MISSING} [2] named in disabled_tasks"


def test_a_table_without_rows_has_its_columns():
    assert columns(printed(0, [])) == list(NAMES)


UUID = "5f0b5f3c-7a55-4b87-bb36-6b0a54a4a1f3"
HISTORY = ("Started", "Outcome", "Target", "Reason")


@pytest.mark.parametrize(
    ("width", "target", "started"),
    [(200, UUID, "2026-11-24T12:05:07"), (60, "5f0b5f3c", "12:05:07")],
)
def test_cells_are_shorter_in_a_narrow_table(width, target, started):
    rows = [("2026-11-24T12:05:07", "ok", UUID, "no"), ("2026-11-24T12:06:07", "ok", "", "")]
    shorter = {"Started": cells.short_times, "Target": cells.short_targets}
    out = io.StringIO()
    asked = argparse.Namespace(max_width=width, fit_width=False, print_empty=False)
    lists.FittedTable((), "Outcome", shorter).emit_list(HISTORY, rows, out, asked)
    lines = out.getvalue().splitlines()
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == [
        started, "ok", target, "no",
    ]  # fmt: skip


def test_what_is_left_out_of_a_cell_is_what_tells_least():
    assert cells.short_times(["2026-11-24T12:05:07", "2026-11-25T12:06:07"]) == [
        "11-24 12:05", "11-25 12:06",
    ]  # fmt: skip
    long = "/var/lib/cepheid/instances/_base/" + "a" * 27
    assert cells.short_targets([f"/disks/{UUID}/disk", "guest", long]) == [
        "/disks/5f0b5f3c/disk", "guest", "…" + "a" * 27,
    ]  # fmt: skip


@pytest.mark.parametrize(("reason", "note"), [("it is due", "it is due; "), ("", "")])
def test_in_a_narrow_table_a_failure_stays_and_its_error_stands_below(reason, note):
    names = ("Task", "Outcome", "Change", "Result", "Reason")
    error = "the disk is missing: mount its storage"
    rows = [("tidy", "partial", "reap", f"failed: {error}", reason),
            ("tidy", "ok", "reap", "done", reason)]  # fmt: skip
    out = io.StringIO()
    asked = argparse.Namespace(max_width=50, fit_width=False, print_empty=False)
    lists.FittedTable(("Change", "Result"), "Outcome", result="Result").emit_list(
        names, rows, out, asked
    )
    lines = out.getvalue().splitlines()
    assert columns(lines) == ["Task", "Outcome", "Change", "Result"]
    assert [line.split("|")[4].strip() for line in lines[3:5]] == ["failed", "done"]
    below = " ".join(line.strip() for line in lines[6:])
    assert below.startswith(f"[1] {note}failed: {error}")


def test_uuids_that_begin_alike_are_still_told_apart():
    counted = [f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2)]
    assert cells.short_targets([*counted, ""]) == ["…00000001", "…00000002", ""]


def test_a_command_in_a_reason_stays_on_one_line():
    lines = [line.strip() for line in printed(50) if "|" not in line and "+" not in line]
    assert lines == [
        "[1] the Python module libvirt is missing;",
        "pip install 'cepheid[libvirt]'",
        "[2] named in disabled_tasks",
    ]


def test_who_provides_a_plugin_matters_most_where_they_differ():
    rows = [*ROWS, ("poll", "replaced", "by acme", "", "acme", "Poll.")]
    assert columns(printed(49, rows)) == ["Name", "State", "Outcome", "Distribution"]
    assert columns(printed(44, rows)) == ["Name", "State", "Distribution"]


def test_a_summary_is_the_first_line_of_a_docstring_shortened():
    class Long:
        __doc__ = "x" * 61 + "\nMore."

    class Short:
        """Do it."""

    def summary(factory):
        point = importlib.metadata.EntryPoint("it", "acme:It", "cepheid.tasks")
        plugin = Plugin("cepheid.tasks", "it", "acme", "1", point, factory=factory)
        return plugin.summary, lists.summary(plugin)

    assert summary(Long) == ("x" * 61, "x" * 59 + "…")
    assert summary(Short) == ("Do it.", "Do it.")
    assert summary(None) == ("", "")
