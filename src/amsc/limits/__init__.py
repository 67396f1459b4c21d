"""What a network may cost: the target, what it means for a network, what is measured, models of latency and memory."""
