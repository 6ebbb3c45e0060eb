"""Everything with a socket, a clock, a secret or a thread."""
