# SPDX-License-Identifier: Apache-2.0
"""The values of ``instances.task_state`` that Cepheid writes or asks for; NULL is idle.

Source: Nova's nova/compute/task_states.py.
"""

SPAWNING = "spawning"
POWERING_OFF = "powering-off"
POWERING_ON = "powering-on"
REBOOTING_HARD = "rebooting_hard"
