# SPDX-License-Identifier: Apache-2.0
"""The bundled kinds' drivers in memory, for tests; they need the core alone.

Each keeps its kind's contract: the same contract tests run on it and on the real drivers.
"""
