"""fio as a bound: the same device, file, block size and depth, in C, without using the bytes."""

import json
import shutil
import subprocess
from typing import Any, ClassVar

from rangeio_bench.contender import Action, Contender, Role, Sample
from rangeio_bench.work import Work

RUN_MS = 400
"""Long enough to reach a steady state, short enough for every round."""


class Fio(Contender):
    """Runs fio in place of a read, and uses the time that it reports."""

    name = "fio"
    role: ClassVar[Role] = "bound"
    calls = {"deep": "io_uring, fixed buffers", "blocks": "io_uring, fixed buffers"}
    reads_direct = True
    has_latency = False

    @classmethod
    def absence(cls) -> str:
        """Whether the command exists."""
        return "" if shutil.which("fio") else "fio is not installed"

    @classmethod
    def version(cls) -> str:
        """The version of the command."""
        if cls.absence():
            return ""
        return (
            subprocess.run(["fio", "--version"], capture_output=True, text=True)
            .stdout.strip()
            .removeprefix("fio-")
        )

    def measure(self, action: Action, works: list[Work]) -> tuple[Sample, Any]:
        """The figures exclude start, layout and report of fio, as its own clock does."""
        depth = self.setting.depth or 8
        size = (
            works[0].offsets[-1] + works[0].length if action == "blocks" else self.setting.path.stat().st_size
        )
        command = [
            "fio",
            "--name=bound",
            "--filename=" + str(self.setting.path).replace(":", r"\:"),  # fio splits names at colons
            "--readonly",
            "--allow_file_create=0",
            "--ioengine=io_uring",
            "--direct=1",
            "--registerfiles=1",
            "--fixedbufs=1",
            "--thread",
            f"--bs={works[0].length}",
            f"--iodepth={depth}",
            f"--size={size}",
            "--output-format=json",
        ]
        if action == "deep":
            command += ["--rw=randread", "--norandommap", "--time_based", f"--runtime={RUN_MS}ms"]
        else:
            command += ["--rw=read"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise RuntimeError(f"fio: {lines[-1] if lines else 'failed'}")
        return _sample(json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]), None


def _sample(job: dict[str, Any]) -> Sample:
    read = job["read"]
    elapsed_ns = read["io_bytes"] / read["bw_bytes"] * 1e9  # `runtime` is in whole milliseconds
    cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] * 1e6
    return Sample(round(elapsed_ns), round(cpu), read["total_ios"], read["io_bytes"])
