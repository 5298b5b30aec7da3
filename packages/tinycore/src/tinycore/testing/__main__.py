"""`python -m tinycore.testing` prints the table member x invariant."""

import sys

from tinycore.testing.table import table

sys.stdout.write(table())
