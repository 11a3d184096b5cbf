"""Datasets, their loaders and D4RL's reference scores."""
