"""``python -m rangeio`` is the command ``rangeio``."""

import sys

from rangeio.cli import main

if __name__ == "__main__":
    sys.exit(main())
