# SPDX-License-Identifier: Apache-2.0
"""What a benchmark found: tables for people, all figures for programs, and a plot."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Whose versions a result names, where they are installed.
PACKAGES = ("cepheid", "SQLAlchemy", "libvirt-python", "PyMySQL", "psycopg2-binary", "eventlet")


@dataclass
class Table:
    """Rows under headings. A float is shown with three digits, None as a dash."""

    title: str
    headings: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)

    def rst(self) -> str:
        """Return it as reStructuredText."""
        lines = [f".. list-table:: {self.title}", "   :header-rows: 1", ""]
        for row in (self.headings, *self.rows):
            cells = [shown(value) for value in row]
            lines += [f"   {'*' if n == 0 else ' '} - {cell}" for n, cell in enumerate(cells)]
        return "\n".join(lines)

    def text(self) -> str:
        """Return it as plain text."""
        cells = [[shown(value) for value in row] for row in (self.headings, *self.rows)]
        widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
        lines = ["  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([self.title, *(line.rstrip() for line in lines)])


@dataclass
class Report:
    """The result of a benchmark.

    :param notes: paragraphs above the tables: how it was measured, what did not reach its aim
    :param figures: all that was measured, as JSON can hold it
    :param draw: draws it into a matplotlib Figure; None where there is nothing to draw
    :param versions: of what took part besides this process, such as a database's server
    """

    notes: Sequence[str]
    tables: Sequence[Table]
    figures: Any
    draw: Callable[[Any], None] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return it as plain text, for a terminal."""
        return "\n\n".join([machine(self.versions), *self.notes, *(t.text() for t in self.tables)])

    def write(self, name: str, directory: Path) -> None:
        """Write ``NAME.rst``, ``NAME.json`` and ``NAME.svg``."""
        directory.mkdir(parents=True, exist_ok=True)
        parts = [machine(self.versions), *self.notes, *(table.rst() for table in self.tables)]
        heading = f".. Written by 'make bench ONLY={name}'.\n\n"
        (directory / f"{name}.rst").write_text(heading + "\n\n".join(parts) + "\n")
        figures = {"machine": machine(self.versions), "figures": self.figures}
        (directory / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
        if self.draw is not None:
            _draw(self.draw, directory / f"{name}.svg")


def shown(value: Any) -> str:
    """Return a cell's text."""
    if value is None:
        return "\N{EN DASH}"  # a hyphen would be a list in reStructuredText
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def machine(versions: Mapping[str, str]) -> str:
    """Say what was measured on: nothing by which the machine could be found."""
    known = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    known.update(versions)
    names = ", ".join(f"{name} {version}" for name, version in known.items())
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        f"Measured on {today}, {os.cpu_count()} processors ({platform.machine()}), "
        f"load {os.getloadavg()[0]:.1f} by the end; {names}."
    )


def _draw(draw: Callable[[Any], None], path: Path) -> None:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Text stays text, and two runs with the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cepheid"})
    figure = Figure(figsize=(9, 5), layout="constrained")
    draw(figure)
    FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})
