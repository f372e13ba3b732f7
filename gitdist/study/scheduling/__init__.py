"""Decides, without Ray, which trial runs when and where; Ray Tune executes it."""
