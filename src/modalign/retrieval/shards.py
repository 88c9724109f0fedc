"""Several stores as one: each image lies in the one that the hash of its name tells, and all are searched."""

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from scipy import sparse

from modalign.errors import SearchError
from modalign.retrieval.definition import Definition
from modalign.retrieval.store import Condition, Entry, Fact, Hit, Store, latest, ranked


class Shards:
    """See the module. The order of the stores must always be the same, and their number."""

    def __init__(self, stores: Sequence[Store]) -> None:
        """Stores that belong together.

        Raises:
            SearchError: Their definitions differ, or they are not all shards of an index, in order.
        """
        check_shards(stores)
        if not all(store.definition.same_as(stores[0].definition) for store in stores):
            raise SearchError("these places are not shards of one index: their models, describers or words differ")
        self._stores = stores

    @property
    def definition(self) -> Definition:
        """See :class:`modalign.retrieval.Store`."""
        return self._stores[0].definition

    def add(self, entries: Sequence[Entry]) -> None:
        """See :class:`modalign.retrieval.Store`; all or none holds for the images of each shard."""
        new = latest(entries, self.definition.words)
        for store, names in self._owners(new):
            store.add([new[name] for name in names])

    def remove(self, names: Collection[str]) -> int:
        """See :class:`modalign.retrieval.Store`."""
        return sum(store.remove(own) for store, own in self._owners(names))

    def search(self, histogram: sparse.csr_array, count: int, where: Sequence[Condition] = ()) -> list[Hit]:
        """See :class:`modalign.retrieval.Store`; the shards search at the same time."""
        with ThreadPoolExecutor(len(self._stores)) as pool:
            found = list(pool.map(lambda store: store.search(histogram, count, where), self._stores))
        return ranked([hit for hits in found for hit in hits], count)

    def facts(self, names: Collection[str]) -> dict[str, Mapping[str, Fact]]:
        """See :class:`modalign.retrieval.Store`."""
        return {name: facts for store, own in self._owners(names) for name, facts in store.facts(own).items()}

    def names(self) -> list[str]:
        """See :class:`modalign.retrieval.Store`."""
        return sorted(name for store in self._stores for name in store.names())

    def __len__(self) -> int:
        return sum(map(len, self._stores))

    def close(self) -> None:
        """Let go of all."""
        for store in self._stores:
            store.close()

    def _owners(self, names: Collection[str]) -> Iterator[tuple[Store, list[str]]]:
        """Each store that has to do with names, and which."""
        owner = {name: zlib.crc32(name.encode()) % len(self._stores) for name in names}
        for number, store in enumerate(self._stores):
            if own := [name for name in names if owner[name] == number]:
                yield store, own


def check_shards(stores: Sequence[Store]) -> None:
    """Refuse stores that are not all the shards of an index: images would be missed, or kept twice.

    Raises:
        SearchError: There is none, one is missing or named twice, or they are in another order.
    """
    if not stores:
        raise SearchError("an index needs at least one place")
    if [store.definition.shard for store in stores] != [(k, len(stores)) for k in range(1, len(stores) + 1)]:
        told = ", ".join("{} of {}".format(*store.definition.shard) for store in stores)
        raise SearchError(f"these places hold shard {told}: name all shards of an index, in the order of its making")
