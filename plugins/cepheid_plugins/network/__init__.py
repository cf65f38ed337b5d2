# SPDX-License-Identifier: Apache-2.0
"""Networks: where an instance's interfaces and addresses are known."""
