"""The public Python surface; ``gitdist/__init__.py`` exports its names."""
