# SPDX-License-Identifier: Apache-2.0
"""Notifications: what is told to whoever listens on the message bus, or in the log."""
