"""``python -m gitdist``."""

import os
import sys

# Python searches the working directory first, where a file of the user's may be named like a library's module.
if not sys.flags.safe_path and sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

from gitdist.cli import main  # noqa: E402

main()
