"""The port's side: runs ``idql_func``, and never imports JAX."""
