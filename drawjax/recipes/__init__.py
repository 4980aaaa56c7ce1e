"""What experiments share: a model, its data, its training and its figures, bound together."""
