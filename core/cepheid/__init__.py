# SPDX-License-Identifier: Apache-2.0
"""Cepheid: a host agent for libvirt/KVM hypervisors that runs periodic tasks."""

from cepheid.task import Task

__all__ = ["Task"]
