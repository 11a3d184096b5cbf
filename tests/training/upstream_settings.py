"""Write ``reference/upstream_settings.json``: the values of upstream's configuration files, flags
and launchers, for the tests of the presets.

Run with any Python that has NumPy and absl: ``python upstream_settings.py CHECKOUT``. The checkout
is executed with mocks of the packages that do not affect its settings (jax, gym, d4rl, wandb, …).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

COMMIT = "7582571"
REFERENCE = Path(__file__).parent / "reference" / "upstream_settings.json"

CONFIGS = ("examples/states/configs", "examples/pixels/configs")
SCRIPTS = (
    "examples/states/train_online.py",
    "examples/pixels/train_online_pixels.py",
    "examples/pixels/train_offline_pixels.py",
    "examples/pixels/collect_from_checkpoint.py",
)
LAUNCHERS = (
    "launcher/examples/train_ddpm_iql_offline.py",
    "launcher/examples/train_ddpm_iql_finetune.py",
    "launcher/iql/train_iql_oneparam.py",
)


class ConfigDict(dict):
    """The part of ``ml_collections.ConfigDict`` that the files use."""

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class Flags(dict):
    """Records the defaults of the flags that a script defines."""

    def define(self, name: str, default: Any, *_: Any, **__: Any) -> None:
        self[name] = default


def mocked_modules(flags: Flags) -> dict[str, Any]:
    """Mocked modules for one execution."""
    ml_collections = ModuleType("ml_collections")
    ml_collections.ConfigDict = ConfigDict  # type: ignore[attr-defined]
    config_dict = ModuleType("ml_collections.config_dict")
    config_dict.config_dict = config_dict  # type: ignore[attr-defined]
    config_dict.placeholder = lambda kind: None  # type: ignore[attr-defined]
    absl_flags = MagicMock()
    for kind in ("string", "integer", "boolean", "float"):
        setattr(absl_flags, f"DEFINE_{kind}", flags.define)
    absl = MagicMock(flags=absl_flags)
    config_flags = MagicMock()
    config_flags.DEFINE_config_file = flags.define
    ml_collections.config_flags = config_flags  # type: ignore[attr-defined]
    names = (
        "d4rl gym jax jax.numpy optax wandb tqdm dmcgym flax flax.core jaxrl5 jaxrl5.agents "
        "jaxrl5.data jaxrl5.data.d4rl_datasets jaxrl5.evaluation jaxrl5.wrappers "
        "jaxrl5.wrappers.wandb_video examples.states.train_diffusion_offline "
        "examples.states.train_offline"
    )
    return {
        **{name: MagicMock() for name in names.split()},
        "absl": absl,
        "ml_collections": ml_collections,
        "ml_collections.config_dict": config_dict,
    }


def execute(root: Path, path: str, flags: Flags) -> ModuleType:
    """Run one file of the checkout."""
    modules = mocked_modules(flags)
    before = {name: sys.modules.get(name) for name in modules}
    search = [str(root), str(root / path).rpartition("/configs/")[0]]
    sys.modules.update(modules)
    sys.path[:0] = search
    try:
        spec = importlib.util.spec_from_file_location("upstream_file", root / path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        del sys.path[: len(search)]
        for name in [n for n in sys.modules if n.split(".")[0] == "configs"]:
            del sys.modules[name]
        for name, module_before in before.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before


def variants_of(root: Path, path: str) -> list[dict[str, Any]]:
    """Every variant that a launcher passes to ``call_main``."""
    module: Any = execute(root, path, Flags())
    combine, found = module.set_hyperparameters, []

    def with_missing_keys(*arguments: Any) -> list[dict[str, Any]]:
        variants = combine(*arguments)
        for variant in variants:  # L1: the offline launcher looks for these two in a wrong place
            for key in ("T", "beta_schedule"):
                if key in variant.get("rl_config", {}):
                    variant[key] = variant["rl_config"][key]
        return variants

    module.set_hyperparameters = with_missing_keys
    module.call_main = found.append
    module.print = lambda *_: None
    module.FLAGS = MagicMock(variant=0)
    while True:
        try:
            module.main(None)
        except IndexError:
            return found
        module.FLAGS.variant += 1


def summary_of(variants: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings that all variants share, and those that differ."""
    flat = []
    for variant in variants:
        # "group" and "seed" are drawn at random (L6), "T" and "beta_schedule" were added above
        ignored = ("rl_config", "seed", "group", "T", "beta_schedule")
        own = {k: v for k, v in variant.items() if k not in ignored}
        own.update({f"rl_config.{k}": v for k, v in variant["rl_config"].items()})
        flat.append(own)
    shared = {k: v for k, v in flat[0].items() if all(k in f and f[k] == v for f in flat)}
    different: list[dict[str, Any]] = []
    for own in flat:
        rest = {k: v for k, v in own.items() if k not in shared}
        if rest not in different:
            different.append(rest)
    return {
        "count": len(variants),
        "seeds": len(variants) // len(different),
        "shared": shared,
        "variants": different,
    }


def collect(root: Path) -> dict[str, Any]:
    """All settings of a checkout."""
    configs = {}
    for folder in CONFIGS:
        for path in sorted((root / folder).glob("*_config.py")):
            name = f"{folder}/{path.name}"
            configs[name] = dict(execute(root, name, Flags()).get_config())
    flags = {}
    for name in SCRIPTS:
        flags[name] = Flags()
        execute(root, name, flags[name])
    launchers = {name: summary_of(variants_of(root, name)) for name in LAUNCHERS}
    return {"commit": COMMIT, "configs": configs, "flags": flags, "launchers": launchers}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkout", type=Path)
    root = parser.parse_args().checkout.resolve()
    REFERENCE.parent.mkdir(exist_ok=True)
    REFERENCE.write_text(json.dumps(collect(root), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {REFERENCE}")


if __name__ == "__main__":
    main()
