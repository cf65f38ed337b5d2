# SPDX-License-Identifier: Apache-2.0
"""What the agent tells over HTTP: whether it is well, its metrics, and the page.

Answered on native threads, from memory and a journal connection of their own, so that answers come
when the hub is blocked or a lock is held. Nothing here logs on those threads: the locks of the log
are green.
"""
