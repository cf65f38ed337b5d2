# SPDX-License-Identifier: Apache-2.0
"""Whether a package of tasks keeps the rules: what ``cepheid task check`` looks at.

The tasks are imported and run in processes of their own (:mod:`.sandbox`), which can write to a
temporary directory only (:mod:`.confinement`), with doubles for drivers.
"""
