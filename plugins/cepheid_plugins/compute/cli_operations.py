# SPDX-License-Identifier: Apache-2.0
"""The commands of ``cepheid instance`` that do something, for operators without Nova."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cepheid import errors
from cepheid.cli import cells, lists
from cepheid.run import Change, Run, RunContext
from cepheid_plugins.compute import opts, vm_states
from cepheid_plugins.compute.adopt import operator_run, refuse_on_nova
from cepheid_plugins.compute.cli import BEGINNING, find_instance
from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.compute.rescue import RescueOperations
from cepheid_plugins.compute.resizing import ResizeOperations, Size
from cepheid_plugins.compute.shelving import ShelvingOperations
from cepheid_plugins.database.records import Instance

if TYPE_CHECKING:
    from cepheid.agent import Agent

#: The group of the option that says when a shelved instance is offloaded.
SHELVED_GROUP = "poll_shelved_instances"


class _Operate(lists.FittedLister):
    """An operation on instances of this host."""

    #: What is done, in the history.
    verb = ""
    #: What is asked before; nothing where nothing can be lost.
    question = ""
    importance = ("Result", "Operation")
    shorter = {"UUID": cells.short_targets}

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "instances",
            metavar="INSTANCE",
            nargs="+",
            help="its name or its whole uuid"
            if self.question
            else f"its name, its uuid, or {BEGINNING}",
        )
        if self.question:
            parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        with self.agent() as agent:
            refuse_on_nova(agent)
            agent.conf.register_opts(opts.OPTIONS, group="compute")
            agent.conf.register_opts([opts.SHELVED_OFFLOAD_TIME], group=SHELVED_GROUP)
            whole = bool(self.question)
            rows = [find_instance(agent, name, whole=whole) for name in parsed_args.instances]
            for row in rows:
                self.check_host(agent, row)
            self._ask(parsed_args, rows)
            run = operator_run(
                agent,
                f"instance_{self.verb}",
                False,
                lambda context: self.act(context, agent, rows, parsed_args),
            )
        if run.error or any(change.outcome != "done" for change in run.changes):
            self._tell_failed(run)
        return ("UUID", "Name", "Operation", "Result"), [
            (change.target, change.reason, change.kind, change.outcome) for change in run.changes
        ]

    def _tell_failed(self, run: Run) -> None:
        """Tell what the log has not; where nothing was done, no table follows.

        :raises CepheidError: nothing was done
        """
        self.exit_code = errors.CepheidError.exit_code
        raced = [change for change in run.changes if change.outcome == "raced"]
        is_done = any(change.outcome == "done" for change in run.changes)
        if raced and is_done:
            self.say(f"cepheid: {_tell_raced(raced)}")
        elif raced:
            raise errors.CepheidError(_tell_raced(raced))
        elif not is_done:
            raise errors.AlreadyReported(run.error or "a change failed")

    def check_host(self, agent: Agent, row: Instance) -> None:
        """See that an instance is this host's.

        :raises CepheidError: it is another's
        """
        if row.host != agent.host:
            if row.host is None and row.vm_state == vm_states.SHELVED_OFFLOADED:
                raise errors.CepheidError(
                    f"{row.uuid} is on no host since it was offloaded; bring it back first, with "
                    f"'cepheid instance unshelve {row.uuid}'."
                )
            where = f"on {row.host}" if row.host else "on no host"
            raise errors.CepheidError(f"{row.uuid} is {where}; this host is {agent.host}.")

    def act(
        self,
        context: RunContext,
        agent: Agent,
        rows: Sequence[Instance],
        parsed_args: argparse.Namespace,
    ) -> None:
        """Carry the operation out."""
        raise NotImplementedError

    def change(
        self,
        context: RunContext,
        verb: str,
        rows: Sequence[Instance],
        do: Callable[[list[Instance], str], Any],
    ) -> list[Change]:
        """Carry an operation out on instances, through the door; return what was done."""
        by_uuid = {row.uuid: row for row in rows}
        return context.change_many(
            verb,
            [
                Change(uuid, row.vm_state, None, row.display_name or "")
                for uuid, row in by_uuid.items()
            ],
            lambda changes: do([by_uuid[change.target] for change in changes], context.request_id),
        )

    def _ask(self, parsed_args: argparse.Namespace, rows: Sequence[Instance]) -> None:
        if not self.question or parsed_args.yes:
            return
        names = ", ".join(f"{row.display_name} ({row.uuid})" for row in rows)
        try:
            answer = input(f"{self.question.format(names)} [yes/no] ").strip().lower()
        except EOFError:
            answer = ""
        if answer not in ("y", "yes"):
            raise errors.CepheidError("Nothing was done; answer yes, or give --yes.")


class InstanceStop(_Operate):
    """Shut instances down; a guest that does not follow in time is powered off."""

    verb = "stop"

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        self.change(context, self.verb, rows, PowerOperations(agent).stop)


class InstanceStart(_Operate):
    """Start instances that are stopped."""

    verb = "start"

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        self.change(context, self.verb, rows, PowerOperations(agent).start)


class InstanceReboot(_Operate):
    """Power instances off at once and start them again; asks before it does."""

    verb = "reboot"
    question = "Power off and start {}? What the guest has not written to its disks is lost."

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        self.change(context, self.verb, rows, PowerOperations(agent).hard_reboot)


class InstanceRescue(_Operate):
    """Shut instances down and boot them from a rescue image, with their own disks attached."""

    verb = "rescue"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--image", required=True, metavar="FILE", help="the disk image to boot a copy of"
        )
        return parser

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        image = os.path.abspath(parsed_args.image)
        operations = RescueOperations(agent)
        do = functools.partial(operations.rescue, image=image)
        self.change(context, self.verb, rows, do)


class InstanceUnrescue(_Operate):
    """Power rescued instances off and boot them as they were."""

    verb = "unrescue"

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        self.change(context, self.verb, rows, RescueOperations(agent).unrescue)


class InstanceResize(_Operate):
    """Give instances another size on this host; what they were is kept until confirm-resize."""

    verb = "resize"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--vcpus", type=_positive, help="virtual CPUs (default: as they are)")
        parser.add_argument("--memory-mib", type=_positive, help="memory (default: as it is)")
        parser.add_argument(
            "--disk-gib",
            type=_positive,
            help="the first disk; it can only grow (default: as it is)",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        if not (parsed_args.vcpus or parsed_args.memory_mib or parsed_args.disk_gib):
            raise errors.CepheidError(
                "No other size is given; name it with --vcpus, --memory-mib or --disk-gib."
            )
        return super().take_action(parsed_args)

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        operations = ResizeOperations(agent)
        for row in rows:
            size = Size(
                parsed_args.vcpus or row.vcpus or 1,
                parsed_args.memory_mib or row.memory_mb or 0,
                parsed_args.disk_gib,
            )
            do = functools.partial(operations.resize, size=size)
            self.change(context, self.verb, [row], do)


class InstanceConfirmResize(_Operate):
    """Keep the new size of instances, and remove what they were; asks before it does."""

    verb = "confirm-resize"
    question = "Remove the files of {} from before the resize?"

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        operations = ResizeOperations(agent)
        by_uuid = {row.uuid: row for row in rows}

        def do(rows: list[Instance], request_id: str) -> dict[str, Any]:
            missing = errors.CepheidError("no resize of it waits for its confirmation")
            return {
                **dict.fromkeys(by_uuid, missing),
                **operations.confirm_instances(rows, request_id),
            }

        self.change(context, self.verb, rows, do)


class InstanceShelve(_Operate):
    """Shut instances down and put their disks by; asks before, if they are offloaded at once."""

    verb = "shelve"
    question = (
        "Shut {} down and put the disks by? With shelved_offload_time = 0 they leave the host."
    )

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        operations = ShelvingOperations(agent)
        shelved = self.change(context, self.verb, rows, operations.shelve)
        if agent.conf[SHELVED_GROUP].shelved_offload_time == 0 and shelved:
            rows = agent.driver("database").instances_by_uuid(c.target for c in shelved)
            self.change(context, "offload", rows, operations.offload)


class InstanceOffload(_Operate):
    """Remove shelved instances' domains and files from this host; asks before it does."""

    verb = "offload"
    question = "Remove the domain and files of {} from this host?"

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        self.change(context, self.verb, rows, ShelvingOperations(agent).offload)


class InstanceUnshelve(_Operate):
    """Bring shelved instances back to the host that put their disks by, and start them."""

    verb = "unshelve"

    def check_host(self, agent: Agent, row: Instance) -> None:
        if row.host is not None:
            super().check_host(agent, row)

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        self.change(context, self.verb, rows, ShelvingOperations(agent).unshelve)


class InstanceSoftDelete(_Operate):
    """Shut instances down and mark them deleted; they can be restored until they are reclaimed."""

    verb = "soft-delete"

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        self.change(context, self.verb, rows, DeletionOperations(agent).soft_delete)


class InstanceRestore(_Operate):
    """Take soft-deleted instances back, and start them."""

    verb = "restore"

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        self.change(context, self.verb, rows, DeletionOperations(agent).restore)


class InstanceDelete(_Operate):
    """Delete instances for good, with their domains and files; asks before it does."""

    verb = "delete"
    question = "Delete {} for good? Nobody can bring the disks back."

    def act(self, context: RunContext, agent: Agent, rows: Any, parsed_args: Any) -> None:
        self.change(context, self.verb, rows, DeletionOperations(agent).delete)


def _tell_raced(changes: Sequence[Change]) -> str:
    """Return what an operator is told of instances that somebody else works on."""
    said = [f"{change.error}." for change in changes if change.error]
    untouched = ", ".join(change.target for change in changes if not change.error)
    if untouched:
        said.append(f"Somebody else works on {untouched}; nothing was done there.")
    return " ".join(said)


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number
