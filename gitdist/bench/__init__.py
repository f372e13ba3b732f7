"""Benchmarks that anyone can run on their own study and machine: ratios within one run, repeated, median and spread."""
