"""``python -m gitdist``."""

from gitdist.cli import main

main()
