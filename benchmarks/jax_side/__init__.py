"""The learners of ``idql_func`` in flax and optax, with which the benchmarks compare this library.

They are written as users of JAX write them: one jitted program per step, its state donated, batches
drawn inside from a dataset on the device. Parameter trees, keys and the order of draws are those of
the port, so that both start from the same numbers and both are compared with the parity record.

Only ``variants`` can be imported without JAX; every other module here imports it.
"""
