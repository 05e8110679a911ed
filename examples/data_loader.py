"""Batches of records for training, read by forked workers, like a torch DataLoader but without torch.

The parent creates one Reader; each worker uses it after the fork, with its own rings and threads.

    python examples/data_loader.py FILE-OR-URL
"""

import multiprocessing
import sys
from typing import Any

import numpy as np

import rangeio

RECORD, BATCH, WORKERS = 256, 32, 4


class Records:
    """A map-style dataset of fixed-size records. `__getitems__` is what a DataLoader calls for a whole batch."""

    def __init__(self, path: str) -> None:
        self.reader = rangeio.open(path)

    def __len__(self) -> int:
        return (self.reader.size or 0) // RECORD

    def __getitems__(self, indices: Any) -> Any:
        return self.reader.read_batch(np.asarray(indices) * RECORD, RECORD).numpy()  # (len(indices), RECORD)


def work(records: Records, seed: int, results: Any) -> None:
    chosen = np.random.default_rng(seed).integers(0, len(records), (10, BATCH))
    for indices in chosen:
        results.put((seed, float(records.__getitems__(indices).mean())))
    results.put((seed, None))


def main(path: str) -> None:
    records = Records(path)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=work, args=(records, seed, results)) for seed in range(WORKERS)]
    for worker in workers:
        worker.start()
    running, batches = WORKERS, 0
    while running:
        _, mean = results.get()
        running -= mean is None
        batches += mean is not None
    for worker in workers:
        worker.join()
    print(f"{batches} batches of {BATCH} records from {WORKERS} workers")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else __file__)
