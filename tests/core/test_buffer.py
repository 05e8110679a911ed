"""The Buffer: what it offers, that nobody can write through it, and that memory lives while somebody looks at it."""

import copy
import gc
import hashlib
import io
import operator
import pickle
import random
import struct
import threading
import weakref
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.child import Lab, code

import _uring

DATA = random.Random(1).randbytes(1 << 20)
Read = Callable[[int, int], _uring.Buffer]
MakeTable = Callable[[], _uring.Buffer]


@pytest.fixture
def file(reactor: _uring.Reactor, tmp_path: Path) -> Iterator[_uring.File]:
    (tmp_path / "data").write_bytes(DATA)
    file = reactor.open(str(tmp_path / "data"))
    yield file
    file.close()


@pytest.fixture
def read(file: _uring.File) -> Read:
    return file.read_at


@pytest.fixture
def make_table(file: _uring.File) -> Callable[[], _uring.Buffer]:
    """Three records of eight bytes. Not the table itself: pytest would hold it longer than the leak check waits."""
    return lambda: file.read_batch([100, 0, 800], 8)


ROWS = [DATA[100:108], DATA[0:8], DATA[800:808]]

# --- bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1, 100, 65_536, 500_000])
def test_is_bytes(read: Read, nbytes: int) -> None:
    buffer = read(5, nbytes)
    expected = DATA[5 : 5 + nbytes]
    assert len(buffer) == buffer.nbytes == nbytes
    assert buffer.shape == (nbytes,)
    assert bytes(buffer) == buffer.tobytes() == expected
    view = memoryview(buffer)
    assert (view.readonly, view.format, view.ndim, view.itemsize, view.c_contiguous) == (
        True,
        "B",
        1,
        1,
        True,
    )
    assert view.tobytes() == expected
    assert bool(buffer) == bool(nbytes)


def test_serves_where_bytes_do(read: Read) -> None:
    buffer = read(0, 64)
    stream = io.BytesIO()
    stream.write(buffer)
    assert stream.getvalue() == b"".join([buffer]) == DATA[:64]
    assert hashlib.sha256(buffer).digest() == hashlib.sha256(DATA[:64]).digest()
    assert struct.unpack_from("<I", buffer, 4) == struct.unpack_from("<I", DATA, 4)
    assert int.from_bytes(buffer[:4], "little") == int.from_bytes(DATA[:4], "little")
    assert np.frombuffer(buffer, "<u4").tolist() == list(struct.unpack("<16I", DATA[:64]))


def test_equality(read: Read) -> None:
    buffer, expected = read(0, 16), DATA[:16]
    for same in (
        expected,
        bytearray(expected),
        memoryview(expected),
        array("I", expected),
        read(0, 16),
        buffer,
    ):
        assert buffer == same
        assert not buffer != same  # noqa: SIM202
    assert expected == buffer
    for other in (DATA[1:17], DATA[:15], b"", "text", None, 5, memoryview(DATA[:32])[::2], read(1, 16)):
        assert buffer != other
        assert not buffer == other  # noqa: SIM201
    assert read(0, 0) == b""


def test_keys_and_weak_references(read: Read) -> None:
    """Equal to bytes, so its hash is theirs; of a table too."""
    buffer, table = read(0, 16), read(0, 16)[4:8]
    assert {buffer: 1}[DATA[:16]] == 1  # type: ignore[index]
    assert hash(table) == hash(DATA[4:8])
    assert hash(memoryview(buffer)) == hash(bytes(buffer))
    seen = weakref.ref(buffer)
    assert seen() is buffer
    del buffer
    gc.collect()
    assert seen() is None
    table.release()
    with pytest.raises(ValueError):
        hash(table)


def test_items(read: Read) -> None:
    buffer = read(0, 10)
    assert [buffer[0], buffer[9], buffer[-1], buffer[np.int64(3)]] == [DATA[0], DATA[9], DATA[9], DATA[3]]
    assert type(buffer[0]) is int
    assert list(buffer) == list(DATA[:10])
    assert DATA[3] in buffer
    for wrong in (10, -11, 2**62):
        with pytest.raises(IndexError):
            buffer[wrong]
    for nonsense in (1.0, "1", None, (0, 1), ...):
        with pytest.raises(TypeError):
            buffer[nonsense]  # type: ignore[call-overload]


def test_slices(read: Read) -> None:
    """Every pair of ends, as bytes have them; and without a copy."""
    buffer = read(0, 12)
    ends = [None, *range(-14, 15)]
    for start in ends:
        for stop in ends:
            assert buffer[start:stop] == DATA[:12][start:stop]
    assert buffer[2:10][1:5][1:] == DATA[4:7]
    assert np.shares_memory(np.asarray(buffer), np.asarray(buffer[3:5]))
    for step in (2, -1):
        with pytest.raises(ValueError, match="step"):
            buffer[::step]


def test_a_slice_outlives_the_whole(read: Read) -> None:
    buffer = read(0, 100_000)
    part = buffer[500:600]
    inner = part[10:20]
    del buffer, part
    others = [read(200_000 + index, 100_000) for index in range(20)]  # would land in freed memory
    assert inner == DATA[510:520]
    assert len(others) == 20


# --- tables --------------------------------------------------------------------------------------------------


def test_table(make_table: MakeTable) -> None:
    table = make_table()
    assert (len(table), table.nbytes, table.shape) == (3, 24, (3, 8))
    assert [bytes(row) for row in table] == ROWS
    assert table[-1] == ROWS[-1]
    assert table[1].shape == (8,)
    assert table[1][2] == ROWS[1][2]
    assert bytes(table) == b"".join(ROWS)
    assert table == b"".join(ROWS), "the shape is not compared"
    view = memoryview(table)
    assert (view.shape, view.readonly, view.c_contiguous) == ((3, 8), True, True)
    assert np.asarray(table).tolist() == [list(row) for row in ROWS]
    with pytest.raises(IndexError):
        table[3]


def test_slices_of_a_table(make_table: MakeTable) -> None:
    table = make_table()
    assert table[1:].shape == (2, 8)
    assert bytes(table[1:]) == b"".join(ROWS[1:])
    assert table[2:1].shape == (0, 8)
    assert np.shares_memory(np.asarray(table), np.asarray(table[1:][0]))


def test_table_as_numbers(make_table: MakeTable) -> None:
    table = make_table()
    assert table.numpy().shape == (3, 8)
    assert table.numpy("<u4").shape == (3, 2)
    assert table.numpy("<u8").shape == (3, 1)
    assert table.numpy("<u4", shape=6).tolist() == np.frombuffer(b"".join(ROWS), "<u4").tolist()
    assert table.numpy("V24").shape == (1,)


# --- arrays --------------------------------------------------------------------------------------------------


def test_arrays(read: Read) -> None:
    buffer = read(0, 48)
    array = buffer.numpy("<f4", (3, 4))
    assert array.shape == (3, 4)
    assert array.tobytes() == DATA[:48]
    assert np.shares_memory(array, np.asarray(buffer))
    assert buffer.numpy().dtype == np.uint8
    assert read(0, 0).numpy("<f4").size == 0
    for wrong in (lambda: buffer.numpy("V7"), lambda: buffer.numpy("u1", 47)):
        with pytest.raises(ValueError):
            wrong()


def test_nobody_writes(read: Read, make_table: MakeTable) -> None:
    table = make_table()
    for buffer in (read(0, 64), read(0, 100_000), table, table[1], read(0, 64)[5:9]):
        for seen in (np.asarray(buffer), np.frombuffer(buffer, "u1"), buffer.numpy()):
            assert not seen.flags.writeable
            with pytest.raises(ValueError):
                seen.flags.writeable = True
        with pytest.raises(TypeError):
            buffer[0] = 1  # type: ignore[index]
        with pytest.raises(TypeError):
            memoryview(buffer)[0] = 1
        with pytest.raises((TypeError, BufferError)):
            io.BytesIO(DATA).readinto(buffer)  # type: ignore[arg-type]


def test_writable_array(backend: str, read: Read) -> None:
    """Of a Buffer nobody else looks at: its memory, and no view of that but the array while this lives."""
    buffer = read(0, 64)
    written = buffer.numpy("<u4", writable=True)
    written[0] = 0
    if backend == "python":  # cannot know that it is alone, so this is a copy
        assert buffer == DATA[:64]
        return
    for look in (memoryview, bytes, np.asarray, lambda whole: whole[0], lambda whole: whole[2:4]):
        with pytest.raises(BufferError):
            look(buffer)
    with pytest.raises(BufferError):
        buffer.release()
    del written
    assert buffer == bytes(4) + DATA[4:64]


def test_writable_copy(read: Read) -> None:
    """As soon as anything else looks at the memory, what is written is not seen there."""
    buffer = read(0, 64)
    for look in (memoryview, np.asarray, lambda whole: whole[3:5], lambda whole: np.frombuffer(whole, "u1")):
        seen = look(buffer)
        array = buffer.numpy(writable=True)
        array[:] = 0
        assert buffer == DATA[:64]
        del seen, array
    assert buffer[10:20].numpy(writable=True).tobytes() == DATA[10:20]


def test_dlpack(read: Read) -> None:
    buffer = read(0, 64)
    assert buffer.__dlpack_device__() == (1, 0)
    try:
        array = np.from_dlpack(buffer)
    except BufferError:  # numpy before 2.1 cannot pass on what is read-only
        return
    assert array.tobytes() == DATA[:64]
    assert not array.flags.writeable


# --- release -------------------------------------------------------------------------------------------------

LOOKS: dict[str, Callable[[Any], Any]] = {
    "memoryview": memoryview,
    "frombuffer": lambda buffer: np.frombuffer(buffer, "u1"),
    "asarray": np.asarray,
    "numpy": lambda buffer: buffer.numpy("<u2"),
    "part of an array": lambda buffer: np.asarray(buffer)[2:4],
    "part of a view": lambda buffer: memoryview(buffer)[2:4],
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("of", ["small", "large", "slice", "table"])
def test_no_release_under_a_view(read: Read, make_table: MakeTable, look: str, of: str) -> None:
    buffer = {
        "small": read(0, 64),
        "large": read(0, 1 << 20),
        "slice": read(0, 64)[8:24],
        "table": make_table(),
    }[of]
    expected = bytes(buffer)
    seen = LOOKS[look](buffer)
    with pytest.raises(BufferError):
        buffer.release()
    assert not buffer.released
    assert buffer == expected
    del seen
    buffer.release()
    assert buffer.released


def test_released(read: Read) -> None:
    buffer = read(0, 64)
    buffer.release()
    buffer.release()
    assert (len(buffer), buffer.nbytes, buffer.released) == (0, 0, True)
    assert "released" in repr(buffer)
    for use in (
        bytes,
        buffer.__getitem__,
        lambda _: buffer[1:],
        lambda _: buffer.numpy(),
        lambda _: buffer.compact(),
    ):
        with pytest.raises((ValueError, TypeError)):
            use(buffer)  # type: ignore[operator]
    with pytest.raises(ValueError):
        buffer[0]


RELEASED: dict[str, Callable[[Any], object]] = {
    "memoryview": memoryview,
    "bytes": bytes,
    "bytearray": bytearray,
    "frombuffer": lambda buffer: np.frombuffer(buffer, "u1"),
    "join": lambda buffer: b"".join([buffer]),
    "append": lambda buffer: bytearray().extend(buffer),
    "write": lambda buffer: io.BytesIO().write(buffer),
    "hash": hashlib.sha256,
    "unpack": lambda buffer: struct.unpack_from("B", buffer),
    "from_bytes": lambda buffer: int.from_bytes(buffer, "little"),
    "decode": lambda buffer: str(buffer, "ascii"),
    "compare": lambda buffer: buffer == b"",
    "iterate": list,
    "contains": lambda buffer: 3 in buffer,
    "copy": copy.copy,
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("way", RELEASED)
@pytest.mark.parametrize("of", ["small", "empty", "slice", "table"])
def test_nothing_is_shown_of_what_was_released(read: Read, make_table: MakeTable, way: str, of: str) -> None:
    """On no backend: a use after release is an error, not no bytes."""
    makers = {"small": lambda: read(0, 64), "empty": lambda: read(5, 0), "slice": lambda: read(0, 64)[8:24]}
    buffer = {**makers, "table": make_table}[of]()
    buffer.release()
    with pytest.raises((ValueError, TypeError)):
        RELEASED[way](buffer)
    assert (len(buffer), buffer.nbytes, buffer.shape) == (0, 0, (0,))


def test_a_released_buffer_is_itself_and_like_no_other(read: Read) -> None:
    buffer, other, living = read(0, 64), read(0, 64), read(0, 64)
    buffer.release()
    other.release()
    assert buffer == buffer
    assert not buffer != buffer  # noqa: SIM202
    assert buffer != other
    for compare in (lambda: buffer == living, lambda: living == buffer, lambda: living != buffer):
        with pytest.raises(ValueError, match="released"):
            compare()


OF_ARRAYS = sorted(
    name
    for name in dir(np.ndarray)
    if not name.startswith("_") and name not in {"nbytes", "shape", "tobytes"}  # of any Buffer
)
FUNCTIONS: dict[str, Callable[[Any], object]] = {
    "concatenate": lambda buffer: np.concatenate([buffer]),
    "concatenate with another": lambda buffer: np.concatenate([np.zeros(3, "u1"), buffer]),
    "max": np.max,
    "copy": np.copy,
    "size": np.size,
    "stack, by name": lambda buffer: np.stack(arrays=(buffer, buffer)),
    "add": lambda buffer: np.add(buffer, 1),
    "str": lambda buffer: buffer.__array__(),
    "interface": lambda buffer: buffer.__array_interface__,
    "struct": lambda buffer: buffer.__array_struct__,
}


@pytest.mark.parametrize("backend", ["python"], indirect=True)
def test_nothing_of_the_array_is_shown_of_what_was_released(read: Read, make_table: MakeTable) -> None:
    """That one of this backend is, by birth."""
    for buffer in (read(0, 64), read(5, 0), read(0, 64)[8:24], make_table()):
        buffer.release()
        for name in OF_ARRAYS:
            with pytest.raises(ValueError, match="released"):
                getattr(buffer, name)
        for call in FUNCTIONS.values():
            with pytest.raises(ValueError, match="released"):
                call(buffer)
        shown = np.asarray(buffer)  # asks nobody
        assert shown.dtype.kind == "M"
        assert np.isnat(shown).all()


@pytest.mark.parametrize("backend", ["python"], indirect=True)
def test_an_array_while_it_lives(read: Read, make_table: MakeTable) -> None:
    buffer: Any = read(0, 64)
    array = np.frombuffer(DATA[:64], "u1")
    assert (buffer.size, buffer.ndim, buffer.dtype, buffer.strides) == (64, 1, "u1", (1,))
    assert (buffer.max(), buffer.item(3), buffer.tolist()) == (array.max(), array[3], array.tolist())
    joined = np.concatenate([buffer, buffer[:3]])
    assert type(joined) is np.ndarray
    assert joined.tobytes() == DATA[:64] + DATA[:3]
    assert np.stack(arrays=(buffer, buffer)).shape == (2, 64)
    assert make_table().T.shape == (8, 3)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        buffer.dtype = "i1"


def test_with_releases(read: Read) -> None:
    with read(0, 64) as buffer:
        assert buffer == DATA[:64]
    assert buffer.released
    with pytest.raises(BufferError), read(0, 64) as buffer:
        view = memoryview(buffer)
    assert view == DATA[:64]


def test_slices_are_released_alone(read: Read) -> None:
    buffer = read(0, 100)
    part, other = buffer[10:20], buffer[15:30]
    part.release()
    assert (buffer, other) == (DATA[:100], DATA[15:30])
    buffer.release()
    assert other == DATA[15:30]


def test_compact(read: Read) -> None:
    buffer = read(0, 1 << 20)
    assert buffer.compact() is buffer
    assert buffer.nbytes_pinned >= 1 << 20
    part = buffer[5000:5100]
    assert part.nbytes_pinned == buffer.nbytes_pinned
    small = part.compact()
    assert small == DATA[5000:5100]
    assert 100 <= small.nbytes_pinned <= 8192
    assert small.compact() is small
    assert not np.shares_memory(np.asarray(small), np.asarray(buffer))


def test_compact_table(file: _uring.File) -> None:
    part = file.read_batch(range(0, 1 << 20, 1024), 1024)[3:5].compact()
    assert part.shape == (2, 1024)
    assert bytes(part) == DATA[3072:5120]


# --- lifetime ------------------------------------------------------------------------------------------------


def test_counted_while_alive(reactor: _uring.Reactor, read: Read) -> None:
    """A view counts as much as the Buffer that it is of."""
    before = reactor.stats()
    buffer = read(0, 100_000)
    during = reactor.stats()
    assert during["buffers_live"] == before["buffers_live"] + 1
    assert during["bytes_live"] >= before["bytes_live"] + 100_000
    view = np.frombuffer(buffer, "u1")
    del buffer
    assert reactor.stats()["buffers_live"] == before["buffers_live"] + 1
    del view
    after = reactor.stats()
    assert (after["buffers_live"], after["bytes_live"]) == (before["buffers_live"], before["bytes_live"])


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("nbytes", [64, 100_000, 1 << 20])
def test_memory_is_not_recycled_under_a_view(read: Read, look: str, nbytes: int) -> None:
    seen = LOOKS[look](read(0, nbytes))
    expected = bytes(seen)
    for index in range(50):
        assert len(read(index, nbytes)) <= nbytes
    assert bytes(seen) == expected


def test_whatever_dies_first(backend: str, tmp_path: Path) -> None:
    """File, reactor, Buffer, slice, view: the last one still shows its bytes."""
    (tmp_path / "data").write_bytes(DATA)
    reactor = _uring.Reactor(backend=backend)  # type: ignore[arg-type]
    file = reactor.open(str(tmp_path / "data"))
    buffer = file.read_at(0, 100_000)
    table = file.read_batch([0, 4096], 4096)
    file.close()
    reactor.close()
    del file, reactor
    gc.collect()
    part, view = buffer[10:20], memoryview(buffer)[20:30]
    row = table[1]
    del buffer, table
    gc.collect()
    assert (part, bytes(view), row) == (DATA[10:20], DATA[20:30], DATA[4096:8192])


def test_threads_share_a_buffer(read: Read) -> None:
    """Slices, views and releases from many threads at once; the count comes out even (see the fixture)."""
    buffer = read(0, 100_000)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(25):
            at = (seed * 7919 + step * 104_729) % 90_000
            part = buffer[at : at + 100]
            if np.asarray(part).tobytes() != DATA[at : at + 100]:
                wrong.append(at)
            part.release()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- making them ---------------------------------------------------------------------------------------------


def test_allocate(reactor: _uring.Reactor) -> None:
    """Memory to be filled by someone else, a socket for instance, before anybody looks at it."""
    buffer = reactor.allocate(10)
    space = reactor.writable(buffer)
    assert (len(space), space.readonly) == (10, False)
    space[:] = b"0123456789"
    del space
    assert buffer == b"0123456789"
    assert not np.asarray(buffer).flags.writeable
    assert reactor.allocate(0).nbytes == 0
    with pytest.raises(ValueError):
        reactor.allocate(-1)


def test_allocate_table(reactor: _uring.Reactor) -> None:
    table = reactor.allocate((3, 4))
    reactor.writable(table).cast("B")[:] = b"aaaabbbbcccc"
    assert [bytes(row) for row in table] == [b"aaaa", b"bbbb", b"cccc"]
    assert reactor.allocate((0, 4)).shape == (0, 4)
    assert reactor.allocate((4, 0)).shape == (4, 0)


def test_is_made_by_reads_only(read: Read) -> None:
    buffer = read(0, 10)
    with pytest.raises(TypeError, match="read"):
        type(buffer)()


# --- copies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_as_a_copy(read: Read, make_table: MakeTable, protocol: int) -> None:
    for make in (lambda: read(0, 0), lambda: read(5, 100_000), lambda: read(0, 64)[9:20], make_table):
        buffer = make()
        copied = pickle.loads(pickle.dumps(buffer, protocol))
        assert (bytes(copied), copied.shape) == (bytes(buffer), buffer.shape)
        assert not np.shares_memory(np.asarray(copied), np.asarray(buffer))
        buffer.release()  # the pickle holds nothing of it
        with pytest.raises(ValueError, match="released"):
            pickle.dumps(buffer, protocol)


def test_pickles_beside_the_pickle(read: Read, make_table: MakeTable) -> None:
    """By protocol 5, for who transports large memory in a way of his own."""
    for make in (lambda: read(5, 100_000), make_table):
        buffer, beside = make(), []
        text = pickle.dumps(buffer, 5, buffer_callback=beside.append)
        assert len(text) < 300
        with memoryview(beside[0]) as view:
            assert view.readonly
            assert np.shares_memory(np.asarray(view), np.asarray(buffer))
        for given in (beside[0].raw(), bytearray(beside[0].raw())):
            copied = pickle.loads(text, buffers=[given])
            assert (bytes(copied), copied.shape) == (bytes(buffer), buffer.shape)
            del copied, given


def test_copied(read: Read, make_table: MakeTable) -> None:
    for make in (lambda: read(5, 1000), make_table):
        for copier in (copy.copy, copy.deepcopy):
            buffer = make()
            copied = copier(buffer)
            assert (bytes(copied), copied.shape) == (bytes(buffer), buffer.shape)
            assert not np.shares_memory(np.asarray(copied), np.asarray(buffer))


def test_lent_memory_is_not_copied(backend: str, read: Read) -> None:
    buffer = read(0, 64)
    array = buffer.numpy(writable=True)
    if backend != "python":  # whose array is a copy
        for protocol in (4, 5):
            with pytest.raises(BufferError):
                pickle.dumps(buffer, protocol)
    del array
    assert pickle.loads(pickle.dumps(buffer)) == buffer


def test_crosses_a_queue(lab: Lab, pattern_file: Path) -> None:
    """Between processes; the thread that feeds the queue pickles what was put, and nobody would hear of its errors."""
    program = code("""
        import multiprocessing, sys
        from concurrent.futures import ProcessPoolExecutor
        import rangeio

        context = multiprocessing.get_context("fork")
        queue = context.Queue()

        def work():
            with rangeio.open(sys.argv[1]) as reader:
                queue.put((reader.read_at(5, 100_000), reader.read_batch([0, 800], 8)))

        child = context.Process(target=work)
        child.start()
        buffer, table = queue.get(timeout=20)
        child.join()
        say(buffer=bytes(buffer) == pattern(5, 100_005), shape=table.shape, row=bytes(table[1]) == pattern(800, 808))
        with rangeio.open(sys.argv[1]) as reader, ProcessPoolExecutor(1, mp_context=context) as others:
            buffer = others.submit(reader.read_range, (5, 5000)).result(20)
            say(result=bytes(buffer) == pattern(5, 5000))
        """)
    facts = lab.run(program, pattern_file).facts()
    assert facts == {"buffer": True, "shape": [2, 8], "row": True, "result": True}


# --- as an operand -------------------------------------------------------------------------------------------


def test_is_appended_as_bytes(read: Read, make_table: MakeTable) -> None:
    """Also where numpy would add numbers: the lengths fit, or the Buffer has one byte."""
    for start, nbytes in ((0, 4), (9, 1), (5, 0), (7, 300)):
        data = bytearray(b"zzzz")
        data += read(start, nbytes)
        assert type(data) is bytearray
        assert data == b"zzzz" + DATA[start : start + nbytes]
        assert b"zzzz" + read(start, nbytes) == data  # type: ignore[operator]
        data.extend(read(0, 2))
    table = make_table()
    data = bytearray()
    data += table
    assert data == b"".join(ROWS)


OPERATIONS = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "@": operator.matmul, "/": operator.truediv,
    "//": operator.floordiv, "divmod": divmod, "**": operator.pow, "<<": operator.lshift, ">>": operator.rshift,
    "&": operator.and_, "^": operator.xor, "|": operator.or_, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge, "+=": operator.iadd, "*=": operator.imul, "|=": operator.ior,
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_is_no_number(read: Read, name: str) -> None:
    """What bytes and Buffers cannot do is refused, not computed."""
    buffer, other, one = read(0, 4), read(4, 4), read(0, 1)
    for left, right in ((buffer, other), (buffer, b"abcd"), (buffer, 2), (3, one), (one, one), ("a", buffer)):
        with pytest.raises(TypeError):
            OPERATIONS[name](left, right)  # type: ignore[operator]
    assert buffer == DATA[:4]


def test_has_no_sign(read: Read) -> None:
    one = read(0, 1)
    for use in (
        operator.neg,
        operator.pos,
        abs,
        operator.invert,
        complex,
        operator.index,
        round,
        range,
    ):
        with pytest.raises(TypeError):
            use(one)


def test_arrays_compute_with_it(read: Read) -> None:
    """As with any bytes-like object, given to numpy."""
    numbers = np.frombuffer(DATA[:4], "u1").astype(int)
    assert (np.arange(4) + read(0, 4)).tolist() == (np.arange(4) + numbers).tolist()  # type: ignore[operator]
    assert np.add(np.asarray(read(0, 4)), 1).dtype == np.uint8
    assert type(np.asarray(read(0, 4)) + np.asarray(read(0, 4))) is np.ndarray


def test_shown(read: Read, make_table: MakeTable) -> None:
    assert "64" in repr(read(0, 64))
    assert "3 x 8" in repr(make_table())
    assert len(repr(read(0, 1 << 20))) < 200
