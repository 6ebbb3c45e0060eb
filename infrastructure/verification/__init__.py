"""The whole store, looked at by one who trusts nothing in it: what is wrong, and where."""
