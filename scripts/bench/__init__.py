"""Measurements: what an operation of the gateway costs, and beside what. Nothing here is needed to
run it."""
