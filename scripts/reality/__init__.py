"""The real system under real misfortune: processes killed, lines cut, a bank in a bad mood; then the
books are compared. `scripts/chaos` runs it."""
