"""The business of the ledger: what may be asked, what happened, and which rule was broken."""
