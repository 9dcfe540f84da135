"""Measure the GPU in one run: `python -m benchmarks device`.

The plan is a list of tasks. Each task has a process and a time limit of its own, so a failure ends only that task.
"""
