# SPDX-License-Identifier: Apache-2.0
"""The hypervisor: what tasks ask of it, and the libvirt driver."""
