"""Benchmarks: encrypted sums beside those of others, and what encryption adds to a round."""
