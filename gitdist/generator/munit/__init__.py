"""MUNIT (Huang et al. 2018): layers, networks, batches, objective, training, and drawing."""
