# SPDX-License-Identifier: Apache-2.0
"""What Cepheid brings along: the bundled tasks and the parts they share."""
