"""The partner bank, over HTTP: `client` speaks, `driver` understands."""
