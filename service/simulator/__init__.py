"""A payment provider and a mail server that behave like the real ones: for `demo`, tests and benchmarks."""
