# SPDX-License-Identifier: Apache-2.0
"""The values of ``instances.task_state`` that Cepheid writes or asks for; NULL is idle.

Source: Nova's nova/compute/task_states.py.
"""

SPAWNING = "spawning"
POWERING_OFF = "powering-off"
POWERING_ON = "powering-on"
REBOOTING = "rebooting"
REBOOT_PENDING = "reboot_pending"
REBOOT_STARTED = "reboot_started"
REBOOTING_HARD = "rebooting_hard"
RESCUING = "rescuing"
UNRESCUING = "unrescuing"
RESIZE_PREP = "resize_prep"
RESIZE_FINISH = "resize_finish"
RESIZE_REVERTING = "resize_reverting"
RESIZE_CONFIRMING = "resize_confirming"
SHELVING = "shelving"
SHELVING_OFFLOADING = "shelving_offloading"
UNSHELVING = "unshelving"
SOFT_DELETING = "soft-deleting"
DELETING = "deleting"
RESTORING = "restoring"
