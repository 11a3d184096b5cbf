"""The parts of :mod:`parity.report`: summary, charts and page."""
