# SPDX-License-Identifier: Apache-2.0
"""The bundled tasks, a module each, named as its entry point."""
