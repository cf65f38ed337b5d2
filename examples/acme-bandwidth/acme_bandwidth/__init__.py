# SPDX-License-Identifier: Apache-2.0
"""Metering of network traffic, by the ACME company."""
