"""The report's figures, one a module: pure functions of records."""
