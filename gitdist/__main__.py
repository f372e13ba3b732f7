"""``python -m gitdist``."""

import os
import sys

# The working directory, where a file of the user's may be named like a library's module; but a checkout needs it.
if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

from gitdist.cli import main  # noqa: E402

main()
