"""Threads that are started while a signal handler forks: parent and child both go on, the child without the thread."""

from pathlib import Path

import pytest
from faults.child import Lab, code
from faults.machine import need_module
from servers.scripted import honest, scripted

DATA = bytes(range(256)) * 4000

# What a handler does is done right after the thread was made, where Thread.start would begin to wait for it.
START = """
    import _thread, os, signal, sys
    import rangeio
    DATA = bytes(range(256)) * 4000
    parent, children = os.getpid(), []
    def look(frame, event, arg):
        if event == "c_return" and arg is _thread.start_new_thread and os.getpid() == parent and not children:
            child = os.fork()
            if child:
                children.append(child)
            else:
                sys.setprofile(None)
                signal.alarm(20)  # one that hangs ends by it
    def many(reader):
        return reader.read_ranges([(0, 9), (500_000, 500_009)], gap=0) == [DATA[:9], DATA[500_000:500_009]]
    def both(call):
        sys.setprofile(look)
        try:
            found = call()
        finally:
            sys.setprofile(None)
        if os.getpid() != parent:
            os._exit(0 if found else 7)
        code = os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])
        say(parent=bool(found), child=code)
"""
CALLS = {
    "store": """
        import io
        with rangeio.from_object(io.BytesIO(DATA), timeout=10) as reader:
            both(lambda: many(reader))
    """,
    "connecting": """
        with rangeio.open(sys.argv[1]) as reader:
            both(lambda: many(reader))
    """,
    "credentials": """
        async def fields():
            return {"X-Key": "a"}
        with rangeio.open(sys.argv[1], credentials=fields) as reader:
            both(lambda: reader.read_at(5, 9) == DATA[5:14])
    """,
    "parquet": """
        import pyarrow
        import pyarrow.parquet
        import rangeio.parquet
        table = pyarrow.table({"a": range(1000)})
        pyarrow.parquet.write_table(table, sys.argv[2])
        both(lambda: rangeio.parquet.read_table(sys.argv[2]).equals(table))
    """,
}


@pytest.mark.parametrize("call", CALLS)
def test_a_fork_while_a_thread_starts(auto_lab: Lab, tmp_path: Path, call: str) -> None:
    need_module("urllib3")
    if call == "parquet":
        need_module("pyarrow")
    with scripted(lambda asked: honest(DATA, asked)) as server:
        program = code(START, CALLS[call])
        facts = auto_lab.run(program, server.url, tmp_path / "file").facts()
    assert facts == {"parent": True, "child": 0}
