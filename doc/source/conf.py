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
html_static_path = ["_static"]
html_theme_options = {
    "description": "A host agent for libvirt/KVM hypervisors",
    # Tables with a column of options need it; below, the navigation goes to the foot of the page.
    "page_width": "1200px",
    "body_max_width": "none",
}
html_show_sourcelink = False

autoprogram_cliff_app_dist_name = "cepheid"

autodoc_typehints = "none"
autodoc_member_order = "bysource"


def drop_aliases(app, what, name, obj, options, lines):
    """Take out what Python says of a named tuple's field that nothing is said of."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", drop_aliases)
