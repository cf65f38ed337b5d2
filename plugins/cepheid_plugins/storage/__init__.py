# SPDX-License-Identifier: Apache-2.0
"""Files of instances, and disk images."""
