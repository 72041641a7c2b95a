"""`python -m mulligan`."""

import sys

from mulligan.cli import main

sys.exit(main())
