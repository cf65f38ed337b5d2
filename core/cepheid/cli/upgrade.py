# SPDX-License-Identifier: Apache-2.0
"""``cepheid upgrade check``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cepheid import config, errors, upgrade
from cepheid.agent import Agent
from cepheid.cli import base
from cepheid.journal import Journal
from cepheid.run import describe

TITLE = "Upgrade Check Results"


class CannotCheck(errors.CepheidError):
    """The check could not be made; nothing is known of the upgrade."""

    exit_code = 255


class UpgradeCheck(base.Command):
    """Look whether the agent can be restarted with the code that is installed now.

    Nothing is changed. The exit status is 0 (all is well), 1 (a warning), 2 (something stops the
    upgrade) or 255 (the check itself went wrong), as oslo.upgradecheck defines.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--json", action="store_true", help="print the results as JSON")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        try:
            library = _library()
            config.check(self.conf)
            # The journal on disk is looked at and not opened: that would migrate it.
            agent = Agent(self.conf, journal=Journal(":memory:"))
        except errors.CepheidError as err:
            raise CannotCheck(str(err)) from err
        try:
            results = [
                (name, _result(library, check, agent)) for name, check in upgrade.found_checks()
            ]
        finally:
            agent.close()
        if parsed_args.json:
            checks = [
                {"check": name, "result": int(result.code), "details": result.details}
                for name, result in results
            ]
            print(json.dumps({"name": TITLE, "checks": checks}))
            return max(int(result.code) for _, result in results)

        class Checks(library.UpgradeCommands):  # type: ignore[name-defined]
            display_title = TITLE
            _upgrade_checks = tuple(
                (name, lambda self, result=result: result) for name, result in results
            )

        return int(Checks().check())


def _library() -> Any:
    try:
        from oslo_upgradecheck import upgradecheck
    except ImportError as err:
        raise errors.CepheidError(
            f"{err.name} is missing; pip install 'cepheid[upgrade]'."
        ) from err
    return upgradecheck


def _result(library: Any, check: upgrade.Check, agent: Agent) -> Any:
    try:
        warning = check(agent)
    except Exception as err:  # noqa: BLE001 - a vendor's check may do anything
        return library.Result(library.Code.FAILURE, describe(err))
    if warning is not None:
        return library.Result(library.Code.WARNING, warning)
    return library.Result(library.Code.SUCCESS)
