"""Benchmarks: jaxgd compared with other programs. All results have one schema."""
