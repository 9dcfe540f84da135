"""Figures and HTML pages of descents, costs, training runs, sweeps and networks' answers, and TensorBoard files."""
