"""Old address of ``checks.py`` and ``factories.py``; the next version removes it."""

from idql_func.deprecation import moved_names

_CHECKS = "idql_func.agents.checks"
_FACTORIES = "idql_func.agents.factories"
_CHECK_NAMES = (
    "check_name",
    "check_integer",
    "check_number",
    "check_fraction",
    "check_dropout",
    "check_rate",
    "check_layers",
    "check_subset",
)
_FACTORY_NAMES = ("critic_network", "value_network", "gaussian_policy", "deterministic_policy")
__getattr__ = moved_names(
    __name__,
    {name: f"{_CHECKS}:{name}" for name in _CHECK_NAMES}
    | {name: f"{_FACTORIES}:{name}" for name in _FACTORY_NAMES}
    | {"trained": f"{_FACTORIES}:train_state", "target_of": f"{_FACTORIES}:target_state"},
)
