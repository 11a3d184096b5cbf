"""The benchmark's JAX side: the learners of ``idql_func`` in flax and optax, compact.

Written as users of JAX write them: one jitted program a step, its state donated, batches drawn
inside from a data set on the device. Parameter trees, keys and the order of draws are those of
the port, so that both sides start from the same numbers and can be held to the same record.

Only ``variants`` may be imported without JAX; every other module here imports it.
"""
