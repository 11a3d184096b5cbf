"""Run Flax's image layers and upstream's encoders, and save their outputs.

Needs upstream's checkout on PYTHONPATH and its packages (jax, flax); nothing of this project.

    python upstream_encoders.py FILE

For each case FILE (safetensors) holds ``<case>/in/<i>...``, initial parameters drawn from
``PRNGKey(7)`` under ``<case>/params``, the output for them, a cotangent ``<case>/w`` and the
gradient of ``sum(w * output)``.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxrl5.networks import MLP, Ensemble, PixelMultiplexer, StateActionValue
from jaxrl5.networks.encoders import D4PGEncoder, ResNetV2Encoder
from jaxrl5.networks.encoders.ln_resnet_encoder import MyGroupNorm
from safetensors.numpy import save_file

DRAWS = np.random.RandomState(0)
TENSORS: dict[str, np.ndarray] = {}


class Pooled(nn.Module):
    """A convolution, which has parameters, and the pooling of the 224-pixel stem."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.max_pool(nn.Conv(2, (1, 1))(x), (3, 3), (2, 2), "SAME")


def put(prefix: str, tree: Any) -> None:
    if hasattr(tree, "items"):
        for name, value in tree.items():
            put(f"{prefix}/{name}", value)
    else:
        TENSORS[prefix] = np.array(tree, order="C")


def case(name: str, module: Any, *inputs: Any) -> None:
    params = module.init(jax.random.PRNGKey(7), *inputs)["params"]
    output = module.apply({"params": params}, *inputs)
    w = DRAWS.randn(*output.shape).astype(np.float32)
    for i, value in enumerate(inputs):
        put(f"{name}/in/{i}", value)
    put(f"{name}/params", params)
    put(f"{name}/out", output)
    put(f"{name}/w", w)
    put(
        f"{name}/grad", jax.grad(lambda p: (module.apply({"params": p}, *inputs) * w).sum())(params)
    )


def image(*shape: int) -> np.ndarray:
    return DRAWS.rand(*shape).astype(np.float32)


def frames(*shape: int) -> np.ndarray:
    return DRAWS.randint(0, 256, shape).astype(np.uint8)


def main() -> None:
    for stride in (1, 2, 3):
        for padding in ("SAME", "VALID", ((1, 2), (0, 3))):
            kind = padding if isinstance(padding, str) else "pairs"
            conv = nn.Conv(2, (3, 4), (stride, stride), padding=padding)
            case(f"conv-{stride}-{kind}", conv, image(2, 8, 7, 3))
    case("conv-no-bias", nn.Conv(2, (3, 3), (2, 2), use_bias=False), image(2, 2, 6, 5, 3))
    case("conv-one", nn.Conv(2, (3, 3), (2, 1)), image(6, 5, 3))
    case("norm", MyGroupNorm(num_groups=4, epsilon=1e-5), image(2, 4, 3, 8))
    case("norm-one", MyGroupNorm(num_groups=4, epsilon=1e-5), image(4, 3, 8))
    case("norm-default", nn.GroupNorm(num_groups=2), image(2, 4, 3, 4))
    case("pool", Pooled(), image(2, 7, 8, 2) - 0.5)

    d4pg = partial(D4PGEncoder, features=(4, 3), filters=(3, 4), strides=(2, 1))
    resnet = partial(ResNetV2Encoder, stage_sizes=(1, 1), num_filters=4)
    case("d4pg", d4pg(), image(2, 12, 11, 3))
    case("d4pg-same", d4pg(padding="SAME"), image(9, 10, 3))
    case("resnet", resnet(), image(2, 7, 6, 3))
    case("resnet-stem", ResNetV2Encoder(stage_sizes=(1,), num_filters=4), image(1, 8, 224, 2))

    critic_base = partial(MLP, hidden_dims=(6,), activate_final=True)
    critic = partial(Ensemble, net_cls=partial(StateActionValue, base_cls=critic_base), num=2)
    actor = partial(MLP, hidden_dims=(6, 2))
    seen = {"pixels": frames(3, 9, 8, 3, 2)}
    case("one-camera", PixelMultiplexer(resnet, actor, 5), seen)
    cameras = {"pixel_keys": ("left", "right"), "depth_keys": ("near", "far")}
    seen = {
        "left": frames(3, 12, 11, 3, 2),
        "right": frames(3, 12, 11, 3, 2),
        "near": image(3, 12, 11, 1, 2),
        "far": image(3, 12, 11, 1, 2),
        "state": image(3, 4),
    }
    case("cameras", PixelMultiplexer(d4pg, critic, 5, **cameras), seen, image(3, 2))
    single = {name: value[0] for name, value in seen.items()}
    case("stopped", PixelMultiplexer(d4pg, actor, 5, stop_gradient=True, **cameras), single)
    metadata = {"upstream": "philippe-eecs/IDQL 7582571", "jax": jax.__version__}
    save_file(TENSORS, sys.argv[1], metadata)


if __name__ == "__main__":
    main()
