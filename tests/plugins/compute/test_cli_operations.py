# SPDX-License-Identifier: Apache-2.0
"""What an operator's command says of instances that somebody else works on."""

from cepheid.run import Change
from cepheid_plugins.compute.cli_operations import _tell_raced


def test_it_says_that_nothing_was_done_only_where_nothing_was():
    untouched = [Change(name, outcome="raced") for name in ("a", "b")]
    deleted = Change("c", outcome="raced", error="c: the delete was carried out, but its row moved")
    assert _tell_raced(untouched) == "Somebody else works on a, b; nothing was done there."
    assert _tell_raced([deleted]) == "c: the delete was carried out, but its row moved."
    assert _tell_raced([*untouched, deleted]) == (
        "c: the delete was carried out, but its row moved. "
        "Somebody else works on a, b; nothing was done there."
    )
