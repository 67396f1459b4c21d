"""The way down: pieces, strengths, the depth rule, and the networks of a path."""
