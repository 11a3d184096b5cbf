"""What :mod:`parity.report` is made of: figures summed up, charts, and the page."""
