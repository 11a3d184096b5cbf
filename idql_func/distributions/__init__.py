"""Distributions over actions, and the networks that make them.

:class:`Diagonal` and the policies are those of ``jaxrl5``, which uses TensorFlow Probability. The
other distributions are those of distrax, which most code of the field uses; their draws of a batch
have another order. All are pytrees, and draw with an explicit key.
"""

from idql_func.distributions.categorical import Categorical
from idql_func.distributions.composed import Independent, TanhTransformed
from idql_func.distributions.deterministic import Deterministic
from idql_func.distributions.diagonal import Diagonal
from idql_func.distributions.distribution import Distribution
from idql_func.distributions.normals import MultivariateNormalDiag, UnivariateNormal
from idql_func.distributions.policies import Normal, TanhDeterministic, TanhNormal

__all__ = [
    "Categorical",
    "Deterministic",
    "Diagonal",
    "Distribution",
    "Independent",
    "MultivariateNormalDiag",
    "Normal",
    "TanhDeterministic",
    "TanhNormal",
    "TanhTransformed",
    "UnivariateNormal",
]
