"""What a run leaves: its folder, checkpoints, metrics, console output, plots and results."""
