"""Timing of `minimize`: steps, callbacks, many starts, and counts of evaluations."""
