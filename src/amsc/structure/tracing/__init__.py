"""The observed run: the user's own forward, operator by operator."""
