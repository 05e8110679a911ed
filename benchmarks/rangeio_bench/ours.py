"""rangeio itself: the call that the targets refer to, and an alternative if there is one."""

from collections import Counter
from typing import Any, ClassVar

import numpy as np

import rangeio
from rangeio_bench.contender import Contender, Role, Setting
from rangeio_bench.work import Work


class Rangeio(Contender):
    """The call that the targets refer to."""

    name = "rangeio"
    role: ClassVar[Role] = "ours"
    calls = {
        "each": "read_at",
        "batch": "read_batch",
        "deep": "read_ranges",
        "whole": "read_at",
        "blocks": "read_batch",
        "ranges": "read_ranges",
        "fill": "read_ranges_into",
        "files": "Operator.read_ranges",
    }
    reads_direct = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        options: dict[str, Any] = {"direct": True} if setting.direct else {}
        if setting.depth:
            options["concurrent"] = setting.depth
        self.reader = rangeio.open(setting.path, **options)
        self.folder = rangeio.Operator("fs", root=str(setting.folder))
        self._before: dict[str, int] = {}
        self._places: dict[int, list[tuple[memoryview, int]]] = {}

    @classmethod
    def version(cls) -> str:
        """The version of the imported package."""
        return rangeio.__version__

    def _each(self, work: Work) -> Any:
        read_at, length = self.reader.read_at, work.length
        result: Any = None
        for offset in work.offsets:
            result = read_at(offset, length)
        return result

    def _batch(self, work: Work) -> Any:
        return self.reader.read_batch(work.array, work.length)

    _blocks = _batch

    def _whole(self, work: Work) -> Any:
        return self.reader.read_at(0, work.nbytes)

    def _ranges(self, work: Work) -> Any:
        return self.reader.read_ranges(work.pairs)

    _deep = _ranges

    def _fill(self, work: Work) -> Any:
        places = self._places_of(work)
        self.reader.read_ranges_into(places)
        return [place for place, _ in places]

    def _places_of(self, work: Work) -> list[tuple[memoryview, int]]:
        """Touched memory for each read; made in the warm-up run."""
        if id(work) not in self._places:
            memory, stops = self.setting.scratch.bytes(work.nbytes).data, np.cumsum(work.lengths).tolist()
            reads = zip(stops, work.lengths, work.offsets, strict=True)
            self._places[id(work)] = [(memory[stop - length : stop], at) for stop, length, at in reads]
        return self._places[id(work)]

    def _files(self, work: Work) -> Any:
        return self.folder.read_ranges([(name, None) for name in work.names])

    def served_by(self) -> str:
        """The backend, and the path of most reads since the last call of this method."""
        now = rangeio.stats()
        ways = Counter(
            {
                "inline": now["inline_hits"] - self._before.get("inline_hits", 0),
                "mapped": now["mapped_reads"] - self._before.get("mapped_reads", 0),
                "ring": now["ring_reads"] - self._before.get("ring_reads", 0),
                "pool": now["pool_reads"] - self._before.get("pool_reads", 0),
            }
        )
        self._before = now
        return ": ".join([rangeio.backend().name, *(way for way, reads in ways.most_common(1) if reads)])

    def _close(self) -> None:
        self.reader.close()


class RangeioOther(Rangeio):
    """The alternative call for the same bytes; has the same name and follows in the list of contenders."""

    calls = {
        "batch": "read_ranges",
        "deep": "read_batch",
        "whole": "read_into",
        "blocks": "read_at",
        "fill": "read_into",
    }

    def _batch(self, work: Work) -> Any:
        return self.reader.read_ranges(work.pairs)

    def _deep(self, work: Work) -> Any:
        return self.reader.read_batch(work.array, work.length)

    def _fill(self, work: Work) -> Any:
        places = self._places_of(work)
        for place, offset in places:
            self.reader.read_into(place, offset)
        return [place for place, _ in places]

    def _whole(self, work: Work) -> Any:
        table = self.setting.scratch.bytes(work.nbytes)
        self.reader.read_into(table)
        return table

    def _blocks(self, work: Work) -> Any:
        return self.reader.read_at(0, work.nbytes)
