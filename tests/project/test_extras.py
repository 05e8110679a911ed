"""What is said where an extra of the package is not installed, by every way in."""

from pathlib import Path

import pytest
from awaited import LOOPS
from faults.child import Lab, code
from faults.machine import need_module

# Each entry point of `WAYS` is called where importing urllib3 fails, and says its error.
WITHOUT_URLLIB3 = """
    import asyncio, sys
    sys.modules["urllib3"] = None  # what makes `import urllib3` a ModuleNotFoundError
    import rangeio

    URL = "http://127.0.0.1:1/x"
    S3 = {"bucket": "bucket", "region": "eu-west-1", "endpoint_url": "http://127.0.0.1:1",
          "access_key_id": "A", "secret_access_key": "B"}

    def told(name, error):
        say(**{name: [type(error).__name__, str(error)]})

    def hear(name, call):
        try:
            call()
        except Exception as error:
            told(name, error)
        else:
            say(**{name: "no error"})
"""
SYNC = """
    for scheme in ("http", "https"):
        url = URL.replace("http", scheme)
        for name, call in {
            "read_at": lambda r: r.read_at(0, 1),
            "read_into": lambda r: r.read_into(bytearray(5)),
            "read_ranges": lambda r: r.read_ranges([(0, 1), (5, 9)]),
            "read_batch": lambda r: r.read_batch([0, 5], 2),
            "iter_ranges": lambda r: list(r.iter_ranges([(0, 1)])),
            "stream": lambda r: list(r.stream()),
            "as_file": lambda r: r.as_file().read(1),
            "stat": lambda r: r.stat(),
            "suffix": lambda r: r.read_range(rangeio.Suffix(1)),
        }.items():
            hear(scheme + " " + name, lambda: call(rangeio.open(url)))
    s3 = rangeio.Operator("s3", **S3)
    hear("s3 open", lambda: s3.open("key").read_at(0, 1))
    hear("s3 stat", lambda: s3.stat("key"))
    hear("s3 list", lambda: list(s3.list()))
    hear("s3 read_ranges", lambda: s3.read_ranges([("a", (0, 1)), ("b", (0, 1))]))
    hear("http stat", lambda: rangeio.Operator("http", root=URL).stat("y"))
"""
AWAITED = """
    from awaited import run_on

    async def read():
        async with rangeio.open_async(URL) as reader:
            await reader.read_at(0, 1)

    async def several():
        async with rangeio.open_async(URL) as reader:
            await reader.read_ranges([(0, 1), (5, 9)])

    async def whole():
        async with rangeio.open_async(URL) as reader:
            async for _ in reader.stream():
                pass

    async def stat():
        await rangeio.open_async(URL).stat()

    async def listed():
        async for _ in rangeio.Operator("s3", **S3).list_async():
            pass

    async def jobs():
        await rangeio.Operator("s3", **S3).read_ranges_async([("a", (0, 1)), ("b", (0, 1))])

    for way in (read, several, whole, stat, listed, jobs):
        hear(way.__name__, lambda: run_on(sys.argv[1], way))
"""


@pytest.mark.parametrize("way", ["sync", *LOOPS])
def test_without_urllib3(auto_lab: Lab, way: str) -> None:
    """Each says what to install, at once: nothing hangs, and there is no ModuleNotFoundError."""
    if way != "sync":
        need_module(way)
    facts = auto_lab.run(code(WITHOUT_URLLIB3, SYNC if way == "sync" else AWAITED), way).facts()
    assert len(facts) >= 6
    for name, told in facts.items():
        assert told[0] == "UnsupportedError", (name, told)
        assert "pip install 'rangeio[http]'" in told[1], (name, told)


def test_the_command_line_without_urllib3(auto_lab: Lab, tmp_path: Path) -> None:
    """One line and exit code 1; what reads files still does."""
    program = """
        import contextlib, io
        from rangeio.cli import main

        for name, arguments in {
            "cat": ["cat", URL], "stat": ["stat", URL], "cp": ["cp", URL, sys.argv[1] + "/copy"],
            "ranges": ["ranges", URL, "--range", "0-5"],
            "ls": ["ls", "s3://bucket", *(part for pair in S3.items() if pair[0] != "bucket"
                                          for part in ("-o", f"{pair[0]}={pair[1]}"))],
        }.items():
            with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
                code = main(arguments)
            say(**{name: [code, err.getvalue()]})
        say(file=main(["stat", __file__, "--json"]))
    """
    outcome = auto_lab.run(code(WITHOUT_URLLIB3, program), tmp_path)
    facts = {name: value for line in outcome.said for name, value in line.items()}
    assert facts.pop("file") == 0
    for name in ("cat", "stat", "cp", "ranges", "ls"):
        exit_code, told = facts[name]
        assert exit_code == 1, (name, told)
        assert "pip install 'rangeio[http]'" in told, (name, told)
        assert told.count("\n") == 1, (name, told)
    assert not list(tmp_path.glob("*copy*"))
