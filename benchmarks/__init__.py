"""Speed of the port: against JAX, against its own eager mode, and against the machine's limit."""
