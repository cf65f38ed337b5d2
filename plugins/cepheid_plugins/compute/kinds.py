# SPDX-License-Identifier: Apache-2.0
"""The operations that there are, as Nova calls them in its records.

Source: Nova's instance actions, events and API.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cepheid_plugins.compute import task_states, vm_states


@dataclass(frozen=True)
class Operation:
    """An operation, as Nova calls it in its records.

    One whose claim is never given back has begun to destroy what it works on; it can only be
    carried on with.
    """

    #: instance_actions.action
    action: str
    #: instance_actions_events.event
    event: str
    #: instances.task_state while it goes on.
    task_state: str
    #: The vm_states in which it may be asked for; None for any. Source: Nova's API.
    vm_states: tuple[str, ...] | None = None
    #: Whether the instance must have been launched.
    launched: bool = True
    #: The notifications' name, without ``.start`` and ``.end``.
    notification: str = ""
    #: Whether an interrupted one leaves the instance idle.
    released: bool = True
    #: Whether the row is deleted with what is written in the end.
    destroys: bool = False


STOP = Operation(
    "stop",
    "compute_stop_instance",
    task_states.POWERING_OFF,
    (vm_states.ACTIVE, vm_states.ERROR),
    notification="power_off",
)
FORCE_STOP = replace(STOP, vm_states=None, launched=False)
START = Operation(
    "start",
    "compute_start_instance",
    task_states.POWERING_ON,
    (vm_states.STOPPED,),
    notification="power_on",
)
REBOOT = Operation(
    "reboot",
    "compute_reboot_instance",
    task_states.REBOOTING_HARD,
    (
        vm_states.ACTIVE,
        vm_states.STOPPED,
        vm_states.PAUSED,
        vm_states.SUSPENDED,
        vm_states.ERROR,
    ),
    notification="reboot",
)
RESCUE = Operation(
    "rescue",
    "compute_rescue_instance",
    task_states.RESCUING,
    (vm_states.ACTIVE, vm_states.STOPPED, vm_states.ERROR),
    notification="rescue",
)
UNRESCUE = Operation(
    "unrescue",
    "compute_unrescue_instance",
    task_states.UNRESCUING,
    (vm_states.RESCUED,),
    notification="unrescue",
)
RESIZE = Operation(
    "resize",
    "compute_finish_resize",
    task_states.RESIZE_FINISH,
    (vm_states.ACTIVE, vm_states.STOPPED),
    notification="resize",
)
#: What is claimed is the migration, by its status.
CONFIRM = Operation(
    "confirmResize",
    "compute_confirm_resize",
    "",
    (vm_states.RESIZED,),
    notification="resize.confirm",
)
SHELVE = Operation(
    "shelve",
    "compute_shelve_instance",
    task_states.SHELVING,
    (vm_states.ACTIVE, vm_states.STOPPED, vm_states.PAUSED, vm_states.SUSPENDED),
    notification="shelve",
)
UNSHELVE = Operation(
    "unshelve",
    "compute_unshelve_instance",
    task_states.UNSHELVING,
    (vm_states.SHELVED, vm_states.SHELVED_OFFLOADED),
    notification="unshelve",
)
OFFLOAD = Operation(
    "shelveOffload",
    "compute_shelve_offload_instance",
    task_states.SHELVING_OFFLOADING,
    (vm_states.SHELVED,),
    launched=False,
    notification="shelve_offload",
    released=False,
)
SOFT_DELETE = Operation(
    "delete",
    "compute_soft_delete_instance",
    task_states.SOFT_DELETING,
    (
        vm_states.ACTIVE,
        vm_states.STOPPED,
        vm_states.PAUSED,
        vm_states.SUSPENDED,
        vm_states.ERROR,
    ),
    launched=False,
    notification="soft_delete",
)
RESTORE = Operation(
    "restore",
    "compute_restore_instance",
    task_states.RESTORING,
    (vm_states.SOFT_DELETED,),
    launched=False,
    notification="restore",
)
DELETE = Operation(
    "delete",
    "compute_terminate_instance",
    task_states.DELETING,
    launched=False,
    notification="delete",
    released=False,
    destroys=True,
)
OPERATIONS = (
    STOP,
    START,
    REBOOT,
    RESCUE,
    UNRESCUE,
    RESIZE,
    SHELVE,
    UNSHELVE,
    OFFLOAD,
    SOFT_DELETE,
    RESTORE,
    DELETE,
)
