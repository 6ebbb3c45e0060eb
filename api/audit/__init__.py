"""The audit family: the log itself, its signed head, proofs, and a payment's history."""
