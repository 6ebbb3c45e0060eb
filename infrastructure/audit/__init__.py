"""The log as evidence: sealed into one order under a tree, signed, published and proven."""
