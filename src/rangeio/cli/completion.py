"""`rangeio completion`: the completion script of a shell."""

import argparse

NAME = "completion"
HELP = "print the completion script of a shell"
DESCRIPTION = """\
Print a script with which a shell completes commands, options and paths. Needs shtab:
pip install 'rangeio[completion]'.

  rangeio completion bash > ~/.local/share/bash-completion/completions/rangeio
  rangeio completion zsh > ~/.zsh/completions/_rangeio          # a folder in $fpath"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    try:
        import shtab
    except ImportError:
        raise ValueError("shell completion needs shtab: pip install 'rangeio[completion]'") from None
    print(shtab.complete(arguments.parser(complete=True), arguments.shell))
    return 0
