"""The original's side: runs in an environment with JAX, and never imports torch."""
