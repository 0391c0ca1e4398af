"""`python -m stepbench` is the command `stepbench`."""

import sys

from stepbench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
