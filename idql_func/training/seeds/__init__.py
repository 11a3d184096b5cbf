"""Several runs as one compiled program: ``idql train --seeds``.

``loop`` trains them; ``config`` defines in which settings members may differ, ``stack`` and
``data`` hold what one update of all members reads, ``acting`` evaluates them, ``memory`` estimates
their memory, and ``report`` and ``plots`` write their results.
"""
