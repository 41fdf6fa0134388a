"""Accelerators that are not there: tensors that say where they lie, and refuse to be mixed.

A tensor on a stand-in keeps its numbers on the CPU, where every operation is computed, so results
are those of the CPU to the bit. What a real accelerator refuses is refused: operands on different
devices, places on another device than what they index, and numbers that nobody moved to the CPU.
"""

# ruff: noqa: ANN401 - what torch hands over is of any type

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, Final, Self

import torch
from torch import Tensor
from torch.__future__ import (
    get_swap_module_params_on_conversion,
    set_swap_module_params_on_conversion,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# A type that no build of torch computes on, and none has to be set up for.
_TYPE: Final = "ipu"
_CPU: Final = torch.device("cpu")
# Of what a backward pass makes within itself; it goes with whatever it is used with.
_ANYWHERE: Final = torch.device(_TYPE, 99)
_aten = torch.ops.aten
_MOVES: Final = (_aten._to_copy.default, _aten.copy_.default)
# Places may lie on the CPU.
_INDEXED: Final = (
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
)


def stand_in(index: int) -> torch.device:
    """A device that is not there."""
    return torch.device(_TYPE, index)


class PlacedTensor(Tensor):
    """A tensor on a stand-in; to torch itself it is one of the CPU without memory."""

    numbers: Tensor
    place: torch.device

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: type[Self], numbers: Tensor, place: torch.device) -> Self:
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
        )
        made.numbers, made.place = numbers, place
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it lies."""
        return self.place

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.numbers!r} on {self.place}"

    def __format__(self, spec: str) -> str:
        return format(self.numbers, spec)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, _types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        return _run(func, args, kwargs or {})


def _found(values: Iterable[object]) -> list[Tensor]:
    found: list[Tensor] = []
    for one in values:
        if isinstance(one, Tensor):
            found.append(one)
        elif isinstance(one, list | tuple):
            found += _found(one)
    return found


def _mapped(make: Callable[[Tensor], object], value: Any) -> Any:
    """The value with its tensors replaced; what torch gives and takes is no deeper than this."""
    if isinstance(value, Tensor):
        return make(value)
    if type(value) in {list, tuple}:
        return type(value)(_mapped(make, one) for one in value)
    return value


def _numbers_of(tensor: Tensor) -> Tensor:
    return tensor.numbers if isinstance(tensor, PlacedTensor) else tensor


def _common_place(func: object, args: tuple[Any, ...], tensors: list[Tensor]) -> torch.device:
    """Where all operands lie, and so what is made of them."""
    if func in _MOVES:
        place: torch.device = args[0].device
        return place
    # A single number may lie on the CPU.
    deciding = [one for one in tensors if isinstance(one, PlacedTensor) or one.dim()]
    if func in _INDEXED:
        deciding = [one for one in deciding if isinstance(one, PlacedTensor) or one is args[0]]
    places = {one.device for one in deciding}
    if len(places) > 1:
        places.discard(_ANYWHERE)
    if len(places) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, found "
            f"{', '.join(sorted(map(str, places)))} in {func}"
        )
    return next(iter(places), _CPU)


def _made_within(caller: tuple[object, ...]) -> torch.device:
    """Where something lies that is asked for on the CPU, maybe by torch itself."""
    if torch._C._current_graph_task_id() != -1:
        return _ANYWHERE
    made_for = [one for one in _found(caller) if isinstance(one, PlacedTensor)]
    return made_for[0].device if made_for else _CPU


def _run(
    func: torch._ops.OpOverload,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    caller: tuple[object, ...] = (),
) -> object:
    tensors = _found((*args, *kwargs.values()))
    place = _common_place(func, args, tensors)
    if kwargs.get("device") is not None:
        place = torch.device(kwargs["device"])
        if place == _CPU and func not in _MOVES:
            place = _made_within(caller)
        kwargs = {**kwargs, "device": _CPU}
    known = {id(one.numbers): one for one in tensors if isinstance(one, PlacedTensor)}
    args = _mapped(_numbers_of, args)
    if func is _aten.histc.default:
        # Accelerators count whole numbers, CPUs do not.
        args = (args[0].float(), *args[1:])
    result = func(*args, **{key: _mapped(_numbers_of, value) for key, value in kwargs.items()})
    if place == _CPU:
        return result
    # A view of a tensor that was not made for inference was not either, wherever it is taken.
    is_view = any(one.alias_info is not None for one in func._schema.returns)
    is_inference = tensors[0].is_inference() if is_view else torch.is_inference_mode_enabled()

    def placed(one: Tensor) -> Tensor:
        # What is changed in place is given back as the tensor that it was.
        return known[id(one)] if id(one) in known else PlacedTensor(one, place)

    with torch.inference_mode(mode=is_inference):
        return _mapped(placed, result)


class _Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes tensors on stand-ins.

    Attributes:
        caller: The operands of the function at hand: what torch needs besides lies where they do.
    """

    caller: tuple[object, ...] = ()

    def __torch_dispatch__(
        self, func: Any, _types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        return _run(func, args, kwargs or {}, caller=self.caller)


class _Functions(TorchFunctionMode):
    """Answers what torch would answer by a tensor's memory or by the device that it knows."""

    def __init__(self, dispatch: _Dispatch) -> None:
        super().__init__()
        self._dispatch = dispatch

    def __torch_function__(
        self, func: Any, _types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        answer = _ANSWERS.get(func, func)
        before = self._dispatch.caller
        self._dispatch.caller = (*args, *kwargs.values()) if kwargs else args
        try:
            return answer(*args, **(kwargs or {}))
        finally:
            self._dispatch.caller = before


def moved(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    """What `Tensor.to` gives."""
    like = args[0] if args and isinstance(args[0], Tensor) else None
    parse: Any = torch._C._nn._parse_to
    device, dtype = (like.device, like.dtype) if like is not None else parse(*args, **kwargs)[:2]
    device = tensor.device if device is None else device
    dtype = tensor.dtype if dtype is None else dtype
    if (device, dtype) == (tensor.device, tensor.dtype) and not copy:
        return tensor
    there: Tensor = _Move.apply(tensor, device, dtype)  # type: ignore[no-untyped-call]
    return there


class _Move(torch.autograd.Function):
    """A copy elsewhere, whose gradient goes the way back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, *target: Any) -> Tensor:
        ctx.before = tensor.device, tensor.dtype
        device, dtype = target
        copy: Tensor = _aten._to_copy.default(tensor, dtype=dtype, device=device)
        return copy

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        device, dtype = ctx.before
        return moved(gradients[0], device=device, dtype=dtype), None, None


def _new(data: Any, **options: Any) -> Tensor:
    return torch.tensor(_mapped(Tensor.item, data), **options)


def _as_tensor(data: Any, **options: Any) -> Tensor:
    return moved(data, **options) if isinstance(data, Tensor) else _new(data, **options)


def _norm(tensor: Tensor, *, p: str = "fro", **options: Any) -> Tensor:
    # Which way it is added up depends on the type of the device.
    assert p == "fro"
    length: Tensor = torch.linalg.vector_norm(tensor, **options)
    return length


_ANSWERS: Final[dict[Any, Callable[..., object]]] = {
    torch.tensor: _new,
    torch.as_tensor: _as_tensor,
    Tensor.to: moved,
    Tensor.type_as: moved,
    Tensor.cpu: lambda tensor: moved(tensor, _CPU),
    Tensor.tolist: lambda tensor: _numbers_of(tensor).tolist(),
    Tensor.norm: _norm,
}


@contextmanager
def stand_ins() -> Iterator[None]:
    """Stand-ins can be used within the block, on this thread."""
    before = torch._C._only_lift_cpu_tensors(), get_swap_module_params_on_conversion()
    # They draw nothing at random.
    module = SimpleNamespace(
        device=nullcontext, get_rng_state=torch.get_rng_state, set_rng_state=lambda *_: None
    )
    setattr(torch, _TYPE, module)
    # Numbers are brought to a device by an operation that can be answered here.
    torch._C._set_only_lift_cpu_tensors(True)  # noqa: FBT003 - it takes no names
    # A module's parameter becomes another tensor when it is moved, rather than one of other memory.
    set_swap_module_params_on_conversion(True)
    dispatch = _Dispatch()  # type: ignore[no-untyped-call]
    try:
        with dispatch, _Functions(dispatch):
            yield
    finally:
        delattr(torch, _TYPE)
        torch._C._set_only_lift_cpu_tensors(before[0])
        set_swap_module_params_on_conversion(before[1])
