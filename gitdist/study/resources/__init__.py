"""What trials are given: the trained generator and the running stream."""
