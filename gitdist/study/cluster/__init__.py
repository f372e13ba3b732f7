"""The Ray cluster: joining it, watching it, what its nodes share."""
