"""``python -m studies.dense``."""

import sys

from studies._command import main

if __name__ == "__main__":
    sys.exit(main("dense"))
