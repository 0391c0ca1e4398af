"""`python -m stepbench`: the command line."""

import sys

from stepbench.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
