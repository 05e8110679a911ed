"""The command ``rangeio``: one module for each subcommand, and the handling of errors.

Exit codes: 0 success, 1 failure (for `doctor`: degraded, or worse; `bench` returns 0 whatever it measures), 2 wrong
usage, 130 interrupted, 141 the reader of a pipe has exited; a shell reports SIGINT and SIGPIPE with the last two.
"""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from rangeio.cli import bench, cat, completion, cp, doctor, ls, ranges, serve, stat, tail
from rangeio.cli.console import UsageError, complain, error_text, need_stdout

_COMMANDS = (cat, tail, cp, ls, stat, ranges, serve, bench, doctor, completion)
# Commands that work without standard output.
_SILENT = (cp, serve)


# How shtab completes paths, by shell.
_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser with one-line errors, which declares the arguments of a command only when it is called."""

    declare: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See argparse, which calls this method for the chosen command."""
        declare, self.declare = self.declare, None
        if declare:
            declare(self)
        return super().parse_known_args(args, namespace)

    def add_argument(self, *names: Any, **how: Any) -> Any:
        """See argparse. What is neither an option nor a choice is a path or a URI: shells complete paths."""
        action: Any = super().add_argument(*names, **how)
        if not action.option_strings and not action.choices:
            action.complete = _FILES
        return action

    def error(self, message: str) -> NoReturn:
        complain(f"rangeio: {message} (see {self.prog} --help)")
        sys.exit(2)


class _Root(_Parser):
    """The parser of all commands. Its help names the schemes, of other distributions too."""

    def format_help(self) -> str:
        """See argparse."""
        from rangeio.services.registry import schemes

        known = ", ".join(f"{'file' if scheme == 'fs' else scheme}://" for scheme in schemes())
        self.epilog = f"An object is named by a path or by a URI with one of the schemes {known}"
        return super().format_help()


def parser(*, complete: bool = False) -> argparse.ArgumentParser:
    """The parser of all commands. complete: with the arguments of each, which are otherwise declared when it is
    called.
    """
    root = _Root(
        prog="rangeio",
        description="Read byte ranges of files and objects, and show which backend reads them.",
    )
    root.add_argument("--version", action="version", version=_version())
    commands = root.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for module in _COMMANDS:
        command = commands.add_parser(
            module.NAME,
            help=module.HELP,
            description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=module.run, prints=module not in _SILENT, parser=parser)
        if complete:
            module.add_arguments(command)
        else:
            command.declare = module.add_arguments
    return root


def full_parser() -> argparse.ArgumentParser:
    """The parser with the arguments of all commands, from which the manual page is made (`make man`)."""
    return parser(complete=True)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"rangeio {version('rangeio')}"
    except PackageNotFoundError:
        return "rangeio, not installed"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names that are not UTF-8 are written unchanged
    try:
        arguments = parser().parse_args(argv)
        if arguments.prints:
            need_stdout()
        code: int = arguments.run(arguments)
        if sys.stdout is not None:  # None if the shell has closed it
            sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout again at exit: redirect it to /dev/null, so that this does not print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("RANGEIO_DEBUG"):
            for line in traceback.format_exc().splitlines():
                complain(line)
        complain(f"rangeio: {error_text(error)}")
        return 2 if isinstance(error, UsageError) else 1
    return code
