"""What each operator does to labels; an operator is found by its PyTorch name in `table`."""
