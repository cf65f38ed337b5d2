# SPDX-License-Identifier: Apache-2.0
"""New packages of task authors: what ``cepheid task new`` writes."""
