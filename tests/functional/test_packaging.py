# SPDX-License-Identifier: Apache-2.0
"""The distributions: what is in them, and what an environment has that they alone are in."""

import email
import json
import os
import stat
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.functional import environments
from tests.functional.agents import Installation
from tests.functional.environments import ROOT, Environment
from tests.functional.processes import give_up, require

pytestmark = [pytest.mark.functional, pytest.mark.timeout(900)]

#: Where the sources of the wheel's packages are.
SOURCES = {"core/cepheid/": "cepheid/", "plugins/cepheid_plugins/": "cepheid_plugins/"}

#: Which of the repository's files the sdist may lack.
OF_THE_REPOSITORY_ALONE = {".gitignore", ".ci/run"}


def run(*command, **options):
    done = subprocess.run(
        command, text=True, capture_output=True, stdin=subprocess.DEVNULL, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked():
    """The files that the repository has."""
    if not (ROOT / ".git").exists():
        give_up("this is no clone of the repository, whose files are compared")
    require("git")
    return {
        name for name in run("git", "ls-files", cwd=ROOT).splitlines() if (ROOT / name).exists()
    }


@pytest.fixture(scope="module")
def built(tracked, tmp_path_factory):
    """The sdist, and the wheel that was built from it."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "dist"))
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--outdir", target, source, env=environments.offline())
    (sdist,), (wheel,) = target.glob("*.tar.gz"), target.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def core_alone(built, tmp_path_factory):
    """An environment with what 'pip install cepheid' brings."""
    return Environment(tmp_path_factory.mktemp("core-alone"), str(built[1]))


@pytest.fixture
def installation(core_alone, tmp_path):
    made = Installation(tmp_path, "")
    made.python = core_alone.python
    made.environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    yield made
    made.close()


def test_the_sdist_has_what_the_repository_has_and_nothing_else(tracked, built):
    with tarfile.open(built[0]) as archive:
        files = {
            member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()
        }
    generated = {name for name in files if name.startswith("cepheid.egg-info/")} | {"PKG-INFO"}
    assert files - generated == tracked - OF_THE_REPOSITORY_ALONE


def test_check_manifest_agrees(tracked):
    run(sys.executable, "-m", "check_manifest", cwd=ROOT, env=environments.offline())


def test_the_wheel_has_the_packages_the_samples_and_nothing_else(tracked, built):
    wanted = {
        name.replace(source, package, 1)
        for name in tracked
        for source, package in SOURCES.items()
        if name.startswith(source)
    }
    samples = {
        name.replace("etc/", "share/", 1) for name in tracked if name.startswith("etc/cepheid/")
    }
    with zipfile.ZipFile(built[1]) as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    metadata = {name for name in files if ".dist-info/" in name}
    data = {name.partition(".data/data/")[2] for name in files if ".data/data/" in name}
    assert data == samples
    assert {name for name in files - metadata if ".data/" not in name} == wanted
    assert {name.partition(".dist-info/")[2] for name in metadata} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt",
    }  # fmt: skip


def test_the_metadata_are_in_order(built):
    run(sys.executable, "-m", "twine", "check", "--strict", *built)
    with zipfile.ZipFile(built[1]) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Name"] == "cepheid"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Apache-2.0" in (metadata["License-Expression"], metadata["License"])


def test_the_core_alone_lists_every_task_with_what_is_missing(installation):
    rows = installation.rows("task", "list")
    assert len(rows) == 17
    for row in rows:
        assert row["State"] == "failed"
        assert "is missing; pip install 'cepheid[" in row["Reason"]


def test_the_core_alone_shows_its_commands(core_alone, installation):
    program = core_alone.path / "bin" / "cepheid"
    shown = run(program, "--help", env=installation.environment)
    assert shown.startswith("usage: cepheid ")
    assert "  task list " in shown
    assert run(program, "--version", env=installation.environment).startswith("cepheid ")


def test_listing_the_tasks_imports_nothing_that_takes_long_and_is_not_needed(installation):
    listed = subprocess.run(
        [installation.python, "-X", "importtime", "-m", "cepheid", "task", "list"],
        env=installation.environment,
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    imported = {line.rpartition("|")[2].strip() for line in listed.stderr.splitlines()}
    assert "cepheid.catalogue" in imported
    assert not imported & {"cepheid.service", "cryptography", "eventlet", "rich"}


@pytest.mark.parametrize("mode", ["eventlet", "threading"])
def test_an_agent_of_the_core_alone_refuses_in_one_line(installation, mode):
    with installation.conf.open("a") as conf:
        conf.write(f"concurrency = {mode}\n")
    refused = installation.run("agent", check=False)
    assert refused.returncode == 1
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith("cepheid: None of the 17 tasks that are enabled can be used;")
    assert line.endswith("pip install 'cepheid[database]'")


def test_the_samples_are_installed_to_be_copied_from(core_alone):
    share = core_alone.path / "share" / "cepheid"
    for name in ("cepheid.conf.sample", "cepheid.service", "logging.conf"):
        assert (share / name).read_bytes() == (ROOT / "etc" / "cepheid" / name).read_bytes()


# Laid out as a Debian package would.


@pytest.fixture(scope="module")
def tree(built, tmp_path_factory):
    """The directory that tools/install-tree.sh makes."""
    path = tmp_path_factory.mktemp("tree")
    environment = {**environments.offline(), "PYTHON": sys.executable}
    run(ROOT / "tools" / "install-tree.sh", built[1], path, env=environment)
    return path


def test_the_tree_has_every_file_in_its_place(tree, tracked):
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    modules = {name for name in files if name.startswith("usr/lib/python3/dist-packages/")}
    samples = {name for name in files if name.startswith("usr/share/cepheid/")}
    assert files - modules - samples == {
        "etc/cepheid/cepheid.conf",
        "etc/cepheid/logging.conf",
        "usr/bin/cepheid",
        "usr/lib/systemd/system/cepheid.service",
        "usr/lib/sysusers.d/cepheid.conf",
        "usr/lib/tmpfiles.d/cepheid.conf",
    }
    assert {name.split("/")[4] for name in modules} == {
        "cepheid", "cepheid_plugins", "cepheid-0.1.0.dist-info",
    }  # fmt: skip
    assert {name.split("/", 5)[5] for name in modules if ".dist-info/" in name} == {
        "METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt",
    }  # fmt: skip
    assert "usr/share/cepheid/cepheid.conf.sample" in samples
    assert stat.S_IMODE((tree / "etc/cepheid/cepheid.conf").stat().st_mode) == 0o640
    assert os.access(tree / "usr/bin/cepheid", os.X_OK)


def test_what_is_in_the_tree_runs(tree, core_alone, tmp_path):
    # What it depends on is of an environment from which cepheid itself is taken.
    libraries = Environment(tmp_path / "libraries", *core_requirements(core_alone))
    assert "cepheid" not in libraries.installed()
    conf = tmp_path / "cepheid.conf"
    conf.write_text((tree / "etc/cepheid/cepheid.conf").read_text() + f"state_path = {tmp_path}\n")
    environment = {**os.environ, "PYTHONPATH": str(tree / "usr/lib/python3/dist-packages")}
    program = (libraries.python, tree / "usr/bin/cepheid", "--config-file", conf)
    listed = json.loads(run(*program, "task", "list", "-f", "json", env=environment))
    assert len(listed) == 17
    assert {row["Version"] for row in listed} == {"0.1.0"}


def core_requirements(core_alone):
    script = "from importlib.metadata import requires; print(*requires('cepheid'), sep='\\n')"
    lines = run(core_alone.python, "-c", script).splitlines()
    return [line for line in lines if ";" not in line]


def test_systemd_takes_the_unit_the_user_and_the_modes(tree, tmp_path):
    require("systemd-analyze", "systemd-sysusers", "systemd-tmpfiles")
    root = f"--root={tree}"
    # In the tree there is nothing of systemd's own that a unit stands on.
    unit = tmp_path / "cepheid.service"
    text = (tree / "usr/lib/systemd/system/cepheid.service").read_text()
    unit.write_text(text.replace("ExecStart=cepheid ", f"ExecStart={tree}/usr/bin/cepheid "))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert [line for line in verified.stderr.splitlines() if "cepheid" in line] == []
    run("systemd-sysusers", root, "cepheid.conf")
    users = (tree / "etc/passwd").read_text()
    assert ":/var/lib/cepheid:/usr/sbin/nologin" in users
    assert "libvirt:" in (tree / "etc/group").read_text()
    if os.getuid() == 0:
        run("systemd-tmpfiles", root, "--create", "cepheid.conf")
        (cepheid,) = [line for line in users.splitlines() if line.startswith("cepheid:")]
        status = (tree / "etc/cepheid/cepheid.conf").stat()
        assert (status.st_uid, status.st_gid) == (0, int(cepheid.split(":")[3]))
        assert stat.S_IMODE((tree / "etc/cepheid").stat().st_mode) == 0o750
