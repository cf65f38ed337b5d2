# SPDX-License-Identifier: Apache-2.0
"""Instances: their states, and what is done to them."""
