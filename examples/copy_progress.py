"""Copy a range of an object into a file, with progress on the terminal.

python examples/copy_progress.py SOURCE TARGET [START STOP]
"""

import sys

import rangeio


def show(done: int, total: int | None) -> None:
    share = f"{100 * done // total:3d} %" if total else ""
    print(f"\r{done / 2**20:10.1f} MiB {share}", end="", file=sys.stderr, flush=True)


def main(source: str, target: str, start: str = "0", stop: str = "") -> None:
    with rangeio.open(source) as reader, open(target, "wb", buffering=0) as file:
        wanted = (
            int(start),
            int(stop) if stop else reader.size,
        )  # with a known size, a percentage can be shown
        copied = reader.copy(file, wanted, progress=show)
    print(f"\n{copied} bytes copied", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
