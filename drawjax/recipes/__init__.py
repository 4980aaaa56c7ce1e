"""What experiments share: a model on its data, from the config to the figures."""
