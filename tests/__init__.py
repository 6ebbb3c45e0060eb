"""The rules of the ledger, as tests; the folders mirror the packages."""
