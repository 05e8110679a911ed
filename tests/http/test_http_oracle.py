"""R0 on bad days: random ranges, by random plans, over connections with random faults, against slices of bytes.

The faults come first and then the network is well, so each read has to succeed, with exactly its bytes.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers.line import DATA, PLAIN, SECURE, SIZE, Line
from servers.proxy import Fault, refusal

import rangeio
from rangeio import Suffix
from rangeio.ranges import bounds

# Each kind strikes sooner or later: in the handshake, the head, the body, or not at all.
KINDS = ["refuse", "reset", "close", "stall", "drip", "flip", "answer"]
PATIENT: Any = {
    "retry": rangeio.Retry(attempts=100, backoff_s=0.001, max_backoff_s=0.01),
    "timeout": rangeio.Timeout(connect_s=0.1, first_byte_s=0.1, idle_s=0.1),
}


@st.composite
def faults(draw: st.DrawFn, scheme: str) -> Fault | None:
    kind: Any = draw(st.sampled_from([*KINDS, None]))
    if kind == "answer":
        return refusal(draw(st.sampled_from([429, 500, 502, 503, 504]))) if scheme == "http" else None
    if kind is None or (kind == "flip" and scheme == "http"):
        return None  # over plain TCP nobody can tell a flipped byte
    # A byte flipped amid the handshake may say for certain that no TLS is spoken here, which is not tried again.
    least = 6_000 if kind == "flip" else 0
    after = draw(st.one_of(st.integers(least, least + 3_000), st.integers(least, SIZE)))
    return Fault(kind, after, pace_s=0.001, lasts=20)


PLACE = st.one_of(st.integers(0, SIZE + 500), st.integers(SIZE - 60, SIZE + 20))
PAIR = st.tuples(PLACE, PLACE).map(lambda ends: (min(ends), max(ends)))
NEAR = st.tuples(PLACE, st.integers(0, 5_000)).map(lambda pair: (pair[0], sum(pair)))
RANGES = st.lists(
    st.one_of(NEAR, PAIR, st.builds(Suffix, st.integers(0, SIZE + 9)), st.tuples(PLACE, st.none())),
    min_size=1,
    max_size=8,
)
PLANS = st.fixed_dictionaries(
    {
        "gap": st.sampled_from([None, 0, 100, 10_000, SIZE, "auto"]),
        "max_merged": st.sampled_from([None, 1, 30_000]),
        "chunk": st.sampled_from([None, 7_001, 40_000]),
        "concurrent": st.sampled_from([None, 1, 3]),
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("way", [name for name in PLAIN + SECURE if name.startswith(("sync", "asyncio"))])
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(data=st.data())
def test_equivalence_whatever_breaks(line: Line, data: st.DataObject) -> None:
    first = line.proxy.connections
    script = data.draw(st.lists(faults(line.scheme), min_size=1, max_size=6), "faults")
    line.proxy.script = lambda number: dict(enumerate(script, first)).get(number)
    ranges, plan = data.draw(RANGES, "ranges"), data.draw(PLANS, "plan")
    expected = [DATA[slice(*bounds(item, SIZE))] for item in ranges]
    reader = line.open(**PATIENT, **plan)
    shape = data.draw(st.sampled_from(["ranges", "iteration", "one by one", "into", "stream"]), "shape")
    if shape == "ranges":
        assert reader.read_ranges(ranges) == expected
    elif shape == "iteration":
        found = dict(reader.iter_ranges(ranges))
        assert [found[index] for index in range(len(ranges))] == expected
    elif shape == "one by one":
        assert [reader.read_range(item) for item in ranges] == expected
    elif shape == "into":
        for item in expected:
            start, space = max(0, DATA.find(item)), bytearray(len(item) + 10)
            whole = DATA[start : start + len(space)]
            assert reader.read_into(space, start) == len(whole)
            assert space[: len(whole)] == whole
    else:
        assert line.stream(reader) == DATA
    reader.close()
