"""Figures of training runs and of costs, and interactive pages."""
