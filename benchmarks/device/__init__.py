"""Measure the GPU in one run: `python -m benchmarks device`.

The plan is a list of tasks. Each task has its own process and time limit, so a failure ends only that task.
"""
