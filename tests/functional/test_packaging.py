# SPDX-License-Identifier: Apache-2.0
"""The distributions: what is in them, and what an environment has that they alone are in."""

import email
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.functional import environments
from tests.functional.agents import Installation
from tests.functional.environments import ROOT, Environment
from tests.functional.processes import give_up

pytestmark = [pytest.mark.functional, pytest.mark.timeout(300)]

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


def test_check_manifest_agrees():
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
