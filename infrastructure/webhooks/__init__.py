"""Webhooks: where merchants are told of events, and how each of these gets there."""
