"""Benchmarks of `minimize`: the times of steps, callbacks and many starts, and the counts of evaluations."""
