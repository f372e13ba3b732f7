"""The resources that trials use: the trained generator and the running stream."""
