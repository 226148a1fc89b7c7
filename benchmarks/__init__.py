"""Benchmarks: what the service costs under load, measured from outside. `./dev bench --help`."""
