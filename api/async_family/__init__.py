"""The asynchronous family: an intent is confirmed at once, and settled in the background."""
