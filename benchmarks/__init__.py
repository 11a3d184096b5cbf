"""How fast the port is: against JAX, against its own eager form, against the machine's limit."""
