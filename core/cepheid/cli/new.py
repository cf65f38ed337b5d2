# SPDX-License-Identifier: Apache-2.0
"""``cepheid task new``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cepheid.cli import base
from cepheid.scaffold import package
from cepheid.scaffold.names import Names

NEXT = """\
Next:
    cd {directory}
    pip install -e '.[test]'
    pytest
    cepheid task check {names.distribution}
Then edit {names.package}/{names.task}.py. README.rst says how the package is installed."""


class TaskNew(base.Command):
    """Write a package with a task of your own: it works, has tests, and is there to be edited.

    The task in it keeps a list of the host's guests in a file. Nothing is overwritten.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="the task's name, such as list_guests")
        parser.add_argument(
            "--dist",
            required=True,
            metavar="DIST",
            help="the distribution's name, as 'pip install' will take it, such as acme-guests",
        )
        parser.add_argument(
            "--directory",
            type=Path,
            metavar="PATH",
            help="where to write it: a directory that is new or empty (default: ./DIST)",
        )
        parser.add_argument(
            "--author", default="", help="who wrote it, as 'Ada <ada@acme.example>'"
        )
        parser.add_argument(
            "--replace",
            action="store_true",
            help="the task is to take the place of an installed one of the same name",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        names = Names.of(parsed_args.name, parsed_args.dist, parsed_args.replace)
        files = package.render(names, parsed_args.author, parsed_args.replace)
        directory = parsed_args.directory or Path(names.distribution)
        package.write(files, directory)
        for path in files:
            print(directory / path)
        self.say(NEXT.format(directory=directory, names=names))
