"""The study: what is searched, who runs it, where it is recorded."""
