"""From labels to channel groups, pins and costs."""
