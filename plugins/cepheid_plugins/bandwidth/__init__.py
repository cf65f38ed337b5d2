# SPDX-License-Identifier: Apache-2.0
"""Bandwidth meters: what tells how much went through the interfaces of instances."""
