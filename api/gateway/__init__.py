"""The gateway family: FicMart's order service authorizes, captures, voids, refunds, and looks."""
