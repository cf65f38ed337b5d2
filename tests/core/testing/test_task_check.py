# SPDX-License-Identifier: Apache-2.0
"""``cepheid task check``: what it prints, and that what it runs can harm nobody."""

import json
import os
import subprocess
import sys
import time

import pytest

from cepheid import errors
from cepheid.testing.conformance import sandbox
from cepheid.testing.conformance.check import check
from tests import mistakes

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]


PACKAGES = (
    "good", "past-the-door", "log-at-import", "ends-the-process", "ends-at-import", "crashes"
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A directory in which the good package and some bad ones are installed."""
    with mistakes.site(tmp_path_factory.mktemp("site")) as site:
        for mistake in [mistakes.GOOD, *mistakes.MISTAKES]:
            if mistake.name in PACKAGES:
                mistakes.install(mistake, site)
        yield site


def cepheid(site, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "cepheid", "task", "check", *arguments],
        env={**os.environ, "PYTHONPATH": str(site)},
        text=True,
        capture_output=True,
    )


def test_a_good_package_has_a_line_for_each_check_and_none_failed(site):
    done = cepheid(site, "acme-good")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("dry run", "time-outs", "half lists", "constant cost", "secrets"):
        assert f"ok       sweep: {name}" in lines
    assert not [line for line in lines if line.startswith(("failed", "warning"))]
    assert lines[-1].startswith("acme-good: ")
    assert lines[-1].endswith(" ok, 1 skipped")


def test_a_mistake_is_told_with_its_place_and_remedy_and_the_exit_status(site):
    done = cepheid(site, "acme-past-the-door", "-f", "json")
    assert done.returncode == 1
    found = {
        (row["Check"], row["Where"]): row
        for row in json.loads(done.stdout)
        if row["Result"] == "failed"
    }
    (row,) = [row for (check, _), row in found.items() if check == "changes"]
    line = 1 + mistakes.MODULE.splitlines().index("        for row in rows:") + 1
    assert row["Where"] == f"acme_past_the_door/sweep.py:{line}"
    assert row["What"] == "it calls hypervisor.power_off past context.change"
    assert "context.change(kind, target" in row["Remedy"]


def test_a_package_that_is_not_installed_is_one_line(site):
    done = cepheid(site, "acme-nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "No distribution 'acme-nothing' is installed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_logs_at_import_does_so_in_its_own_process_only(site):
    assert ("import", "failed") in {(one.check, one.result) for one in check("acme-log-at-import")}


@pytest.mark.parametrize(
    ("package", "how"),
    [
        ("ends-the-process", "its process ended after the check 'constructor' with status 3"),
        ("ends-at-import", "its process ended with status 0"),
        ("crashes", "signal 11 (Segmentation fault) ended its process after the check "
                    "'constructor'"),
    ],
)  # fmt: skip
def test_of_a_process_that_is_gone_is_told_how_it_ended_and_what_came_before(site, package, how):
    done = cepheid(site, f"acme-{package}")
    last = done.stdout.splitlines()[-2]
    assert (done.returncode, done.stderr) == (1, "")
    assert last.startswith(f"failed   sweep: sandbox: {how}. To mend it: ")


def test_what_hangs_is_ended(site):
    began = time.monotonic()
    (found,) = [one for one in sandbox.check("acme-good", "sweep", 0.1) if one.check == "sandbox"]
    assert found.result == "failed"
    assert "it hangs" in found.what
    assert time.monotonic() - began < 60


def test_there_has_to_be_such_a_distribution():
    with pytest.raises(errors.PluginError):
        check("acme-nothing")


#: Writes and signals past Python's audit events, and through them, from a confined process.
HOSTILE = """
import ctypes, os, signal, socket, sys
from pathlib import Path
from cepheid.testing.conformance.confinement import confine
from cepheid.testing.conformance.watch import Watch

inside, outside, victim = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
confined = confine(inside)
libc = ctypes.CDLL(None, use_errno=True)
print("confined", confined)
print("native", libc.open(outside.encode(), os.O_WRONLY | os.O_CREAT, 0o600))
print("signal", libc.kill(victim, signal.SIGTERM))
(inside / "mine").write_text("x")
watch = Watch(inside, sys.argv[4])
watch.install()
exec(compile(f"open({outside!r}, 'w')", sys.argv[4] + "x.py", "exec"))
"""


def test_a_confined_process_writes_to_its_directory_and_signals_nobody(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        done = subprocess.run(
            [sys.executable, "-c", HOSTILE, inside, outside, str(victim.pid), "/hostile/"],
            text=True,
            capture_output=True,
        )
        if "confined True" in done.stdout:  # a kernel without Landlock leaves native code alone
            assert done.stdout.splitlines()[1:] == ["native -1", "signal -1"]
            assert victim.poll() is None
            assert not outside.exists()
        assert "writes to its own directory only" in done.stderr
        assert (inside / "mine").read_text() == "x"
    finally:
        victim.kill()
        victim.wait()
