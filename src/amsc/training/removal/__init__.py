"""What has been removed, and choosing what goes to meet a cost."""
