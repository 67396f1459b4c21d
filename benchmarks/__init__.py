"""Measurements: scripts, and one package with a command of its own (`python -m benchmarks.gpu`)."""
