"""Run a small program in a process of its own and collect what it said."""

import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _uring

from .machine import SUPPORT

TIMEOUT_S = 30
# Python 3.12 warns of every fork beside threads; that it goes well with ours is what many of these programs show.
FORKS = "ignore:This process:DeprecationWarning"
MOST_STDERR = 6000  # characters of it that a failure shows, the first and the last


def code(*parts: str) -> str:
    """One program of several indented pieces of text."""
    return "".join(textwrap.dedent(part) for part in parts)


@dataclass(frozen=True)
class Outcome:
    """How a child ended: `code` is negative for a signal, `said` one dict for each line of JSON."""

    code: int
    said: list[dict[str, Any]]
    stderr: str

    def facts(self) -> dict[str, Any]:
        """All that was said, of a child that ended well and quietly."""
        assert self.code == 0, f"exit {self.code}\n{self.stderr}"
        assert not self.stderr, f"on stderr:\n{self.stderr}"
        return {name: value for line in self.said for name, value in line.items()}


class Child:
    """A running program. `line()` waits for what it says next, `tell()` gives it a line to read."""

    def __init__(
        self, program: Path, arguments: list[str], environ: Mapping[str, str], wire: int | None
    ) -> None:
        command = [sys.executable, "-X", "faulthandler", str(program), *arguments]
        self.errors = program.with_suffix(".stderr")
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environ,
                pass_fds=[] if wire is None else [wire],
            )
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def line(self, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        try:
            text = self.lines.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"the child said nothing for {timeout_s} s\n{self.stacks()}") from None
        assert text, f"the child ended, with {self.process.wait(TIMEOUT_S)}\n{self.stderr()}"
        result: dict[str, Any] = json.loads(text)
        return result

    def tell(self, text: str = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def finish(self, timeout_s: float = TIMEOUT_S) -> Outcome:
        """Wait for the end. A child that does not end shows its stacks and fails the test."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the child did not end in {timeout_s} s\n{self.stacks()}") from None
        self.listener.join(TIMEOUT_S)
        said = []
        while not self.lines.empty():
            if text := self.lines.get():
                said.append(json.loads(text))
        return Outcome(code, said, self.stderr())

    def stacks(self) -> str:
        """End it by force; what every thread was doing, as faulthandler tells it on SIGABRT."""
        self.process.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):  # a read that cannot be interrupted outlives even SIGKILL
            self.close()
        return self.stderr()

    def stderr(self) -> str:
        text = self.errors.read_text()
        half = MOST_STDERR // 2
        return text if len(text) <= MOST_STDERR else f"{text[:half]}\n...\n{text[-half:]}"

    def close(self) -> None:
        try:
            self.process.wait(5 if self.process.poll() is None else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(TIMEOUT_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not (pipe is self.process.stdout and self.listener.is_alive()):
                pipe.close()


class Lab:
    """Starts children in a folder of their own, for one backend (or None for the default choice)."""

    def __init__(self, folder: Path, backend: str | None) -> None:
        self.folder, self.backend = folder, backend
        self.children: list[Child] = []

    def start(self, program: str, *arguments: object, wire: int | None = None, **environ: str) -> Child:
        path = self.folder / f"program{len(self.children)}.py"
        path.write_text("from faults.inside import *\n" + program)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("RANGEIO_") or name == "RANGEIO_POISON"
        }
        # The child tests what this process has imported, which need not be what is installed.
        folders = os.pathsep.join([str(SUPPORT), str(Path(_uring.__file__).parent.parent)])
        settings = {"PYTHONPATH": folders, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": FORKS, **environ}
        if self.backend is not None:
            settings["RANGEIO_BACKEND"] = self.backend
        if wire is not None:
            settings["RANGEIO_TEST_WIRE"] = str(wire)
        child = Child(path, [str(argument) for argument in arguments], {**inherited, **settings}, wire)
        self.children.append(child)
        return child

    def run(self, program: str, *arguments: object, wire: int | None = None, **environ: str) -> Outcome:
        return self.start(program, *arguments, wire=wire, **environ).finish()

    def close(self) -> None:
        for child in self.children:
            if child.process.poll() is None:
                child.process.kill()
            child.close()
