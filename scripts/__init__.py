"""The operators' and contributors' commands."""
