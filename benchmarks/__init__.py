"""Benchmarks: jaxgd compared with other programs, and every figure in one schema."""
