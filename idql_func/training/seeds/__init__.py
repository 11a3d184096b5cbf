"""Many runs side by side as one compiled program: ``idql train --seeds``.

``loop`` trains them; ``config`` says what members may differ in, ``stack`` and ``data`` are what
one update of all reads, ``memory`` what they need, and ``records, report, plots`` what they leave.
"""
