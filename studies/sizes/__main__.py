"""``python -m studies.sizes``."""

import sys

from studies._command import main

if __name__ == "__main__":
    sys.exit(main("sizes"))
