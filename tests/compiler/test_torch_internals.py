"""Private parts of torch: used in one file, checked, and each with a fallback."""

from __future__ import annotations

import ast
import importlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor import config, cpp_builder

from idql_func import disable_jit, jit, optim, random, scan, struct, tree_leaves, vmap
from idql_func.compiler import torch_internals
from idql_func.compiler.inductor import compiler_problem
from idql_func.compiler.torch_internals import INTERNALS, Internal, problem_of
from idql_func.switches import set_native_matmul
from idql_func.training.seeds.memory import peak_bytes_of_fake
from idql_func.transforms import value_and_grad

ROOT = Path(__file__).parents[2]
FOLDERS = ("idql_func", "parity", "benchmarks")
NOT_OF_TORCH = {"_asdict", "_fields", "_replace", "_max_episode_steps", "_is_correct_index"} | {
    *("_Stop", "_Unframer")
}
"""Private names of Python's named tuples and pickle, of Gymnasium and of the original code."""


@pytest.fixture(autouse=True)
def fresh_internals() -> Iterator[None]:
    torch_internals.reset()
    yield
    torch_internals.reset()


@pytest.fixture
def off_lines(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """A function that returns the INFO records about routes that are off."""
    with caplog.at_level(logging.INFO, "idql_func"):
        yield lambda: [r for r in caplog.records if r.name == "idql_func" and " off (" in r.message]


# --- without each part ----------------------------------------------------------------


class Learner(struct.PyTreeNode):
    """A layer with its optimiser, and a key."""

    rng: Tensor
    layer: struct.TrainState


def _loss(params: Any, batch: Any) -> Tensor:
    hidden = torch.relu(batch["x"] @ params["kernel"] + params["bias"])
    return (hidden.clamp(0, 2) - batch["y"]).square().mean()


def _update(learner: Learner, batch: Any) -> tuple[Learner, dict[str, Tensor]]:
    rng, key = random.split(learner.rng)
    batch = {**batch, "x": batch["x"] + random.normal(key, batch["x"].shape)}
    loss, grads = value_and_grad(_loss)(learner.layer.params, batch)
    return Learner(rng, learner.layer.apply_gradients(grads=grads)), {"loss": loss}


def _all_results() -> list[Tensor]:
    """The results of a donating loop, a scan, a graph with dynamic rows, and a mapped function."""
    xs = torch.linspace(-1, 1, 4 * 6 * 8).reshape(4, 6, 8)
    batches = {"x": xs, "y": xs.square().sum(-1, keepdim=True).expand(4, 6, 5).contiguous()}
    params = {"kernel": torch.linspace(-1, 1, 40).reshape(8, 5), "bias": torch.zeros(5)}
    layer = struct.TrainState.create(params=params, tx=optim.adam(0.01))
    learner = Learner(random.PRNGKey(0), layer)
    step = jit(_update, donate_argnums=0)
    losses = []
    for k in range(3):
        learner, info = step(learner, {name: x[k] for name, x in batches.items()})
        losses.append(info["loss"])
    learner, infos = scan(step, learner, batches)
    rows = jit(lambda i, data: data[i].sin(), open_argnames="data")
    picked = rows(torch.tensor([1, 0]), data=xs[0])
    mapped = vmap(jit(_loss), in_axes=(None, 0))(learner.layer.params, batches)
    shared = vmap(lambda x: xs[0].sum(), out_axes=None)(xs)
    return [*losses, *tree_leaves(learner), infos["loss"], picked, mapped, shared]


@pytest.fixture(scope="module")
def expected() -> list[Tensor]:
    with disable_jit():
        return _all_results()


def _check(expected: list[Tensor]) -> None:
    with set_native_matmul():
        results = _all_results()
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result, value, rtol=1e-5, atol=1e-6)
    assert peak_bytes_of_fake(lambda x: x + 1, torch.zeros(100)) in (0, 400)
    for route in torch_internals.FALLBACKS:  # those that these functions do not use
        problem_of(route)


def test_all_parts_are_found_on_supported_versions(expected: list[Tensor], off_lines: Any) -> None:
    _check(expected)
    assert off_lines() == []
    assert {name: part.problem for name, part in INTERNALS.items() if part.problem} == {}


@pytest.mark.parametrize("name", INTERNALS)
def test_missing_part_keeps_the_values_and_is_logged_once(
    name: str, expected: list[Tensor], off_lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find() -> Any:
        raise ImportError("it is gone")

    part = INTERNALS[name]
    monkeypatch.setattr(part, "find", find)
    _check(expected)
    (line,) = [record.getMessage() for record in off_lines()]
    assert "it is gone" in line and torch.__version__ in line and name in line
    for route in part.routes:
        assert route in line and torch_internals.FALLBACKS[route] in line
        assert "it is gone" in str(problem_of(route))
    others = torch_internals.FALLBACKS.keys() - {*part.routes}
    assert [problem_of(route) for route in others] == [None] * len(others)


# --- parts with another behaviour -----------------------------------------------------


class _NoMode:
    """A context without effect."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class _OneStorage:
    _cdata = 0


_FIXED = type("Fixed", (), {"STATIC": 2, "DYNAMIC": 2})
_INDUCTOR = "torch._inductor."
BROKEN: dict[str, tuple[str, Any]] = {
    "make_fx": ("torch.fx.experimental.proxy_tensor.make_fx", lambda f: f),
    "lazy_graph_code": ("torch.fx._lazy_graph_module._use_lazy_graph_module", _NoMode),
    "functorch_stack": ("torch._C._functorch.peek_interpreter_stack", lambda: None),
    "functorch_levels": ("torch._C._functorch.maybe_get_level", lambda tensor: 0),
    "functorch_value": ("torch._C._functorch.get_unwrapped", lambda tensor: torch.zeros(1)),
    "torch_pytree": ("torch.utils._pytree.register_constant", lambda: None),
    "nonstrict_trace": ("torch._dynamo.nonstrict_trace", lambda fn: lambda x: None),
    "no_tracing": ("torch._guards.tracing", lambda context: None),
    "operator_type": ("torch.ops.aten.add_", torch.ops.aten.add),
    "storage_identity": ("torch.Tensor.untyped_storage", lambda tensor: _OneStorage),
    "fake_tensor_propagation": ("torch.fx.passes.fake_tensor_prop.FakeTensorProp", object),
    "fake_tensor_with_dynamic_rows": ("torch.fx.experimental.symbolic_shapes.DimDynamic", _FIXED),
    "tracing_context": ("torch._guards.TracingContext", _NoMode),
    "standalone_compile": (_INDUCTOR + "standalone_compile", lambda graph, inputs: graph),
    "inductor_config": ("torch._inductor.config", object()),
    "cpp_compiler_search": (_INDUCTOR + "cpp_builder.get_cpp_compiler", None),
    "vector_flags": (_INDUCTOR + "cpu_vec_isa.x86_isa_checker", None),
    "lowering": (_INDUCTOR + "lowering.register_lowering", lambda operator: operator),
    "dispatch_mode": ("torch.utils._python_dispatch.TorchDispatchMode", _NoMode),
    "fake_tensor_mode": ("torch._subclasses.fake_tensor.FakeTensorMode", _NoMode),
    "lazy_clone": ("torch.Tensor._lazy_clone", lambda tensor: tensor),
    "compiled_graph_type": (_INDUCTOR + "output_code.CompiledFxGraph", object),
}
"""A changed behaviour of each part, which its check must detect."""


def test_every_part_has_a_broken_case() -> None:
    assert BROKEN.keys() == INTERNALS.keys()


@pytest.mark.parametrize("name", BROKEN)
def test_changed_behaviour_is_detected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert INTERNALS[name]() is not None
    torch_internals.reset()
    place, _, attribute = BROKEN[name][0].rpartition(".")
    monkeypatch.setattr(_resolve(place), attribute, BROKEN[name][1])
    assert INTERNALS[name]() is None
    assert INTERNALS[name].problem is not None


def _resolve(path: str) -> Any:
    module, *names = path.split(".")
    found: Any = importlib.import_module(module)
    for name in names:
        if not hasattr(found, name):
            importlib.import_module(f"{found.__name__}.{name}")
        found = getattr(found, name)
    return found


def test_part_is_searched_for_once() -> None:
    searches: list[int] = []
    part = Internal(lambda: searches.append(1), ())
    assert (part(), part(), part.problem) == (None, None, None)
    assert searches == [1]


def _fail(*args: Any, **kwargs: Any) -> Any:
    raise ValueError("Cannot convert symbols to int\nand more lines")


@pytest.mark.parametrize(
    ("part", "route"),
    [("standalone_compile", torch_internals.INDUCTOR), ("lowering", torch_internals.MATMUL)],
)
def test_failed_compilation_falls_back(
    part: str,
    route: str,
    expected: list[Tensor],
    off_lines: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if part == "lowering":
        monkeypatch.setattr("idql_func.compiler.pass_matmul.fused_matmul_layout", _fail)
    else:
        monkeypatch.setattr(INTERNALS[part], "find", lambda: _fail)
    with config.patch(fx_graph_cache=False):
        _check(expected)
    (line,) = [record.getMessage() for record in off_lines()]
    assert route in line and "ValueError: Cannot convert symbols to int)" in line
    assert "more lines" not in line
    assert "Cannot convert" in str(problem_of(route))


def test_compiled_graph_of_unknown_structure_is_not_recorded(
    expected: list[Tensor], off_lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_internals, "generated_function", lambda code: None)
    _check(expected)
    (line,) = [record.getMessage() for record in off_lines()]
    assert torch_internals.REPLAY in line


# --- Inductor's settings --------------------------------------------------------------


def test_settings_exist_in_inductor_and_are_restored() -> None:
    settings = torch_internals.inductor_settings()
    before = {name: _setting(name) for name in settings}
    with config.patch(settings):
        assert {name: _setting(name) for name in settings} == settings
    assert {name: _setting(name) for name in settings} == before


def _setting(name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("compiler", ["/bin/false", "/no/such/compiler"])
def test_inductor_tests_a_compiler_that_rejects_the_flags(monkeypatch, compiler) -> None:
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: compiler)
    assert "cpp.vec_isa_ok" not in torch_internals.inductor_settings()


def test_inductor_tests_the_compiler_on_other_machines(monkeypatch) -> None:
    monkeypatch.setattr(torch_internals.platform, "machine", lambda: "aarch64")
    assert "cpp.vec_isa_ok" not in torch_internals.inductor_settings()


def test_inductor_tests_the_compiler_on_a_cpu_with_amx(monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert "cpp.vec_isa_ok" not in torch_internals.inductor_settings()


def test_size_asserts_are_on_only_if_the_environment_sets_them(monkeypatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_SIZE_ASSERTS", raising=False)
    assert torch_internals.inductor_settings()["size_asserts"] is False
    monkeypatch.setenv("TORCHINDUCTOR_SIZE_ASSERTS", "1")
    assert torch_internals.inductor_settings()["size_asserts"] is True


def test_one_compiler_thread_is_restored_after_the_block() -> None:
    before = config.compile_threads
    with torch_internals.one_compiler_thread():
        assert config.compile_threads == 1
    assert config.compile_threads == before


def test_compiler_is_found_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(INTERNALS["cpp_compiler_search"], "find", _fail)
    monkeypatch.setenv("CXX", sys.executable)
    assert torch_internals.cpp_compiler() == sys.executable
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    assert torch_internals.cpp_compiler() is None
    compiler_problem.cache_clear()
    try:
        assert "no C++ compiler" in str(compiler_problem(torch.device("cpu")))
    finally:
        compiler_problem.cache_clear()


# --- in one file ----------------------------------------------------------------------


def _trees() -> dict[str, ast.Module]:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return {str(p.relative_to(ROOT)): ast.parse(p.read_text(encoding="utf-8")) for p in paths}


def _defined_names(tree: ast.AST) -> Iterator[str]:
    """The names that a file defines or assigns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def _is_private(module: str) -> bool:
    first, *others = module.split(".")
    experimental = module.startswith("torch.fx.experimental")
    return first == "torch" and (experimental or any(name.startswith("_") for name in others))


def private_uses(tree: ast.AST, defined: set[str]) -> Iterator[str]:
    """The private names of torch that a file imports, reads or names in ``getattr``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_private(alias.name))
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from filter(_is_private, names)
        elif isinstance(node, ast.Attribute):
            if _is_hidden(node.attr) and node.attr not in defined:
                yield node.attr
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            name = node.args[1]
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            named = str(name.value) if isinstance(name, ast.Constant) else ""
            if called in ("getattr", "hasattr") and _is_hidden(named) and named not in defined:
                yield named


def _is_hidden(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_private_names_of_torch_are_in_one_file() -> None:
    trees = _trees()
    defined = NOT_OF_TORCH | {name for tree in trees.values() for name in _defined_names(tree)}
    uses = {path: sorted({*private_uses(tree, defined)}) for path, tree in trees.items()}
    found = {path: names for path, names in uses.items() if names}
    assert found.keys() == {"idql_func/compiler/torch_internals.py"}, found
    assert {"_schema", "_cdata", "_overloadname", "torch._inductor.standalone_compile"} <= {
        *found["idql_func/compiler/torch_internals.py"]
    }


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch._dynamo as dynamo", ["torch._dynamo"]),
        ("from torch._C import _functorch", ["torch._C._functorch"]),
        ("from torch.fx.experimental.proxy_tensor import make_fx", [
            "torch.fx.experimental.proxy_tensor.make_fx"
        ]),
        ("torch.add._schema", ["_schema"]),
        ("self._mine, torch.func.vmap, x.__class__", []),
        ("getattr(x, '_cdata')", ["_cdata"]),
    ],
)  # fmt: skip
def test_private_names_are_detected(source: str, found: list[str]) -> None:
    assert list(private_uses(ast.parse(source), {"_mine"})) == found


def test_importing_the_library_imports_neither_sympy_nor_inductor() -> None:
    code = (
        "import sys, idql_func.transforms, idql_func.struct\n"
        "print([n for n in ('sympy', 'torch._inductor.compile_fx') if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
