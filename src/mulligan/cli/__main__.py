"""`python -m mulligan.cli`."""

import sys

from mulligan.cli import main

sys.exit(main())
