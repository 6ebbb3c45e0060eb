"""The log for people who do not have the database: bundles that prove themselves, books, tables."""
