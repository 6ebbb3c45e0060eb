"""Read models: what happened, made ready to be asked for. They do not know one another."""
