"""What closes: gates on blocks and channels, the derivatives of the loss by them, and what goes for any cost."""
