"""HTTP, and nothing else: JSON to commands, refusals to statuses, read models to JSON."""
