"""Time and memory of training: epochs, steps, many networks, sweeps, start-up, growth and wide networks."""
