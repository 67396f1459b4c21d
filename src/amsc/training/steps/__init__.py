"""What moves weights: steps of training, optimisers, the proximal step, fine-tuning; and how good a network is."""
