"""`python -m acmix`: the command line where its script is not installed."""

import sys

from acmix.cli import main

sys.exit(main())
