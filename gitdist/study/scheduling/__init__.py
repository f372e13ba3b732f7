"""Which trial runs when and where: decisions without Ray, and their execution by Ray Tune."""
