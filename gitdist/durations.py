"""Durations as text."""

DAY_S = 86_400.0
_UNITS = ((DAY_S, "days"), (3600.0, "h"), (60.0, "min"))
_TWO_DIGITS = 99.5  # from here on, two digits would be 1e+02


def format_duration(seconds: float) -> str:
    """Return a duration with two digits, in seconds, minutes, hours or days; with one decimal below a second."""
    if seconds < 1:
        return f"{max(0.0, seconds):.1f} s"
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1.0, "s"))
    number = seconds / size
    return f"{number:.2g} {unit}" if number < _TWO_DIGITS else f"{number:,.0f} {unit}"
