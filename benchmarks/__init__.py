"""Benchmarks: the book's runs, and results as data."""
