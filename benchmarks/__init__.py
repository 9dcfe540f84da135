"""Benchmarks: jaxgd compared with other programs, attacks on jaxgd, and an ablation of its gradient checker."""
