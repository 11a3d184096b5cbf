"""Training loops, their settings, checkpoints, logs and plots.

The modules are imported one by one (``from idql_func.training.offline import train_offline``), so
that reading settings costs nothing of what training needs.
"""
