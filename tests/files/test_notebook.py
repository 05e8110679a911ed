"""What notebooks show."""

import pickle

import rangeio


def test_a_plan() -> None:
    with rangeio.from_bytes(bytes(1000)) as reader:
        plan = reader.plan([(start, start + 1) for start in range(0, 900, 30)], gap=None)
        shown = plan._repr_html_()
        assert shown.startswith("<table><caption>Plan(30 ranges -&gt; 30 requests,")
        assert "; 10 more requests are not shown</caption>" in shown
        assert shown.count("<tr>") == 21
        assert "&lt;bytes&gt;" in shown
        assert "more requests" not in reader.plan([(0, 1)])._repr_html_()


def test_counters() -> None:
    """A dict as before, also in a pickle."""
    with rangeio.from_bytes(bytes(1000)) as reader:
        reader.read_ranges([(0, 10), (20, 30)])
        for counters in (reader.stats, rangeio.stats()):
            shown = counters._repr_html_()  # type: ignore[attr-defined]
            assert all(f"<td>{name}</td>" in shown for name in counters)
            assert type(pickle.loads(pickle.dumps(counters))) is dict
            assert counters == dict(counters)
