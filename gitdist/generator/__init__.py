"""Generators: networks and functions that redraw the nuisance of an image."""
