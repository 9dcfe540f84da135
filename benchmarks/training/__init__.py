"""Timing of training: epochs, steps, many networks, start-up and growth, each program in its own process."""
