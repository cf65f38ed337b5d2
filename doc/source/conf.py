# SPDX-License-Identifier: Apache-2.0
"""Sphinx's configuration. Options and commands are generated from the code."""

import importlib.metadata

project = "Cepheid"
project_copyright = "The Cepheid developers"
version = release = importlib.metadata.version("cepheid")

extensions = [
    "cliff.sphinxext",
    "oslo_config.sphinxext",
    "sphinx.ext.autodoc",
    "stevedore.sphinxext",
]

html_theme = "alabaster"
html_theme_options = {"description": "A host agent for libvirt/KVM hypervisors"}
html_show_sourcelink = False

autoprogram_cliff_app_dist_name = "cepheid"

autodoc_typehints = "none"
autodoc_member_order = "bysource"
