# SPDX-License-Identifier: Apache-2.0
"""``cepheid task check`` finds typical mistakes, and no fault with what is good."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cepheid.testing.conformance import metadata, sandbox
from cepheid.testing.conformance.check import check
from tests import mistakes
from tests.mistakes import GOOD, MISTAKES

pytestmark = [pytest.mark.functional, pytest.mark.timeout(1800)]

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
BUNDLED = [plugin.name for plugin in metadata.tasks_of(metadata.find("cepheid"))]

#: Processes in which something is checked at one time.
AT_ONE_TIME = 3


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What was found in each package, by the name of its mistake."""
    with mistakes.site(tmp_path_factory.mktemp("site")) as site:
        names = {mistake.name: mistakes.install(mistake, site) for mistake in [GOOD, *MISTAKES]}
        with ThreadPoolExecutor(AT_ONE_TIME) as pool:
            return dict(zip(names, pool.map(check, names.values()), strict=True))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_finds_a_mistake_by_the_check_that_is_for_it(found, mistake):
    wrong = [one for one in found[mistake.name] if one.result in ("failed", "warning")]
    assert mistake.found_by in {one.check for one in wrong}
    assert all(one.what and one.remedy for one in wrong)


def test_finds_all_but_three_at_the_most_of_thirty_and_more(found):
    missed = [
        mistake.name
        for mistake in MISTAKES
        if not any(one.result in ("failed", "warning") for one in found[mistake.name])
    ]
    assert len(MISTAKES) >= 30
    assert missed == []


def test_finds_no_fault_with_the_package_that_all_of_them_began_as(found):
    assert [one for one in found["good"] if one.result in ("failed", "warning")] == []


@pytest.fixture(scope="module")
def bundled():
    with ThreadPoolExecutor(AT_ONE_TIME) as pool:
        return dict(
            zip(BUNDLED, pool.map(lambda n: sandbox.check("cepheid", n), BUNDLED), strict=True)
        )


@pytest.mark.parametrize("name", BUNDLED)
def test_finds_no_fault_with_a_bundled_task(bundled, name):
    assert [one for one in bundled[name] if one.result in ("failed", "warning")] == []
    played = [one.check for one in bundled[name] if one.result == "ok"]
    assert {"constructor", "dry run", "leftovers", "overlapping", "repeatable"} <= set(played)


@pytest.mark.parametrize("name", ["acme-guest-dumps", "acme-bandwidth"])
def test_finds_no_fault_with_an_example(name, tmp_path):
    source, site = tmp_path / name, tmp_path / "site"
    shutil.copytree(EXAMPLES / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, source],
        check=True,
    )
    with mistakes.site(site):
        assert [one for one in check(name) if one.result in ("failed", "warning")] == []


def test_finds_no_fault_with_what_cepheid_task_new_writes(tmp_path):
    source, site = tmp_path / "acme-guests", tmp_path / "site"
    new = ("task", "new", "list_guests", "--dist", "acme-guests", "--directory", source)
    subprocess.run([sys.executable, "-m", "cepheid", *new], check=True, capture_output=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, source],
        check=True,
    )
    with mistakes.site(site):
        found = check("acme-guests")
    assert {one.result for one in found} == {"ok"}
