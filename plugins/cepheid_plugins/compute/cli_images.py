# SPDX-License-Identifier: Apache-2.0
"""``cepheid image list | forget-host``."""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING, Any

from cliff.columns import FormattableColumn

from cepheid import errors
from cepheid.cli import base
from cepheid_plugins.compute import image_options, opts
from cepheid_plugins.compute.adopt import operator_run
from cepheid_plugins.compute.image_survey import Surveyor
from cepheid_plugins.compute.image_verdicts import shortened

if TYPE_CHECKING:
    from cepheid.agent import Agent


class Owners(FormattableColumn):
    """Who uses a file: some of them for people, all of them for programs."""

    def human_readable(self) -> str:
        return shortened(self._value)

    def machine_readable(self) -> list[str]:
        return sorted(self._value)


class ImageList(base.Lister):
    """List the files of the image cache, who uses each, and what is to become of it.

    It looks as thoroughly as the task run_image_cache_manager_pass does before it removes
    anything, and changes nothing.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        with self.agent() as agent:
            surveyor, conf = _surveyor(agent)
            files = surveyor.scan() or []
            hosts = sorted({*surveyor.users.hosts(), agent.host})
            survey = surveyor.look(files, hosts, image_options.rules(conf), thorough=True)
            now = surveyor.now()
        for problem in survey.uses.problems:
            self.say(f"Nothing would be removed: {problem}.")
        columns = ("Name", "Kind", "Bytes", "Age s", "Owners", "Verdict", "Reason")
        return columns, [
            (
                one.file.entry,
                one.file.kind,
                one.file.size_bytes,
                int(now - one.file.modified_at),
                Owners(one.owners),
                one.verdict.value,
                one.reason,
            )
            for one in survey.found
        ]


class ImageForgetHost(base.ShowOne):
    """Say that a host is gone that shared the storage; its instances keep no image any more.

    A host that is not gone enters itself again.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST", help="as it stands in the registry")
        parser.add_argument(
            "--yes", action="store_true", help="even if live instances on it are on record"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        host = parsed_args.host
        with self.agent() as agent:
            surveyor, _ = _surveyor(agent)
            known = surveyor.users.hosts()
            if host not in known:
                raise errors.CepheidError(
                    f"{host!r} is not among those that share this storage: "
                    f"{', '.join(known) or 'none'}."
                )
            live = [row.uuid for row in agent.driver("database").instances_on_host(host)]
            if live and not parsed_args.yes:
                raise errors.CepheidError(
                    f"{len(live)} live instances on {host} are on record. Give --yes if nobody "
                    "wants their disks any more."
                )
            seen = datetime.datetime.fromtimestamp(known[host], datetime.UTC).replace(tzinfo=None)
            run = operator_run(
                agent,
                "image_forget-host",
                False,
                lambda context: context.change(
                    "forget_host",
                    host,
                    str(seen),
                    None,
                    "an operator said that it is gone",
                    do=lambda: surveyor.users.forget(host),
                ),
            )
        (change,) = run.changes
        if change.outcome != "done":
            raise errors.AlreadyReported(change.error)
        return ["host", "last heard of", "live instances"], [host, str(seen), len(live)]


def _surveyor(agent: Agent) -> tuple[Surveyor, Any]:
    """Return who looks at the image cache, and the task's options."""
    agent.conf.register_opts(opts.OPTIONS, group="compute")
    agent.conf.register_opts(image_options.OPTIONS, group=image_options.GROUP)
    conf = agent.conf[image_options.GROUP]
    return Surveyor(agent, conf.subdirectory_name), conf
