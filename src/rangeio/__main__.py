"""``python -m rangeio`` runs the command ``rangeio``."""

import sys

from rangeio.cli import main

if __name__ == "__main__":
    sys.exit(main())
