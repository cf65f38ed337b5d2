# SPDX-License-Identifier: Apache-2.0
"""``cepheid audit verify | head``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cepheid import errors
from cepheid.cli import base
from cepheid.journal import FILE_NAME, Head
from cepheid.journal.audit import Verdict


class AuditVerify(base.ShowOne):
    """Verify that no record of the journal was edited, removed or put in afterwards."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--expect",
            metavar="PLACE:HASH",
            help="a seal that was noted earlier ('cepheid audit head', or the agent's log) and "
            "must be in the chain; so a chain that was made anew, or cut short, is found",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        expect = Head.parse(parsed_args.expect) if parsed_args.expect else None
        path = Path(self.conf.state_path) / FILE_NAME
        verdict = self.read_journal(lambda it: it.verify(expect))
        if verdict is None:
            raise errors.CepheidError(f"There is no journal {path} yet.")
        _refuse_flaws(path, verdict, expect)
        fields = {
            "journal": str(path),
            "result": "intact",
            "records": verdict.records,
            "seals": verdict.seals,
            "first seal": verdict.anchor.id + 1,
            "head": str(verdict.head),
        }
        if expect is not None:
            fields["expected"] = (
                "in the chain" if verdict.expected else "older than what is kept: not compared"
            )
        return list(fields), list(fields.values())


class AuditHead(base.Command):
    """Print the newest seal, to be noted on another host for 'cepheid audit verify --expect'."""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        head = self.read_journal(lambda it: it.head())
        if head is None:
            raise errors.CepheidError(
                f"There is no journal {Path(self.conf.state_path) / FILE_NAME} yet."
            )
        print(head)


def _refuse_flaws(path: Path, verdict: Verdict, expect: Head | None) -> None:
    if verdict.flaws:
        first, *others = [flaw.message for flaw in verdict.flaws]
        more = f" Also: {'; '.join(others)}." if others else ""
        raise errors.CepheidError(f"The journal {path} is not as it was written: {first}.{more}")
    if verdict.expected is False:
        raise errors.CepheidError(
            f"The journal {path} is consistent, but seal {expect} is not in its chain, which ends "
            f"with {verdict.head}: the chain was made anew or cut short, or the seal is another "
            "host's."
        )
