"""Watching a forward pass: which parameters linear operators read, and where what they return is added to a stream."""

import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from amsc.reconstruction.calls import LinearCall, linear_call
from amsc.reconstruction.chain import Step, step_of

__all__ = ["Link", "Names", "Watch"]


@dataclass(eq=False)
class Link:
    """A tensor on the way from the output of a consumer: the steps that led to it, and what is made of it."""

    consumer: str
    steps: tuple[Step, ...] = ()
    uses: int = 0
    next: "Link | None" = None

    def to_stream(self) -> int:
        """How many steps lead to the last sum with a stream before anything else reads what is on the way; 0 if
        none does."""
        link, found = self, 0
        while link.uses == 1 and link.next is not None:
            link = link.next
            found = len(link.steps) if link.steps[-1].is_sum else found
        return found


@dataclass(frozen=True)
class Names:
    """The tensors of a model by their ids: first names, and all names of those that have several."""

    first: Mapping[int, str]
    several: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def of(cls, model: nn.Module) -> "Names":
        """Those of its parameters and buffers."""
        every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        names: dict[int, list[str]] = {}
        for name, tensor in every:
            names.setdefault(id(tensor), []).append(name)
        several = {found[0]: tuple(found) for found in names.values() if len(found) > 1}
        return cls({key: found[0] for key, found in names.items()}, several, dict(every))

    def of_own(self, tensor: Tensor | None) -> str | None:
        """The name of a tensor that may be changed: a trained parameter or a buffer that has no second name."""
        name = None if tensor is None else self.first.get(id(tensor))
        is_frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
        return None if name in self.several or is_frozen else name


class Watch(TorchFunctionMode):
    """Follows what linear operators return for as long as each number only gets a scale and a new place.

    Modules are not asked: what counts is that a linear operator is called with a parameter of the network."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.names = names
        self._links: Any = WeakIdKeyDictionary()
        self._static: Any = WeakIdKeyDictionary()
        for tensor in names.tensors.values():
            self._static[tensor] = True

    def is_followed(self, name: str) -> bool:
        """Whether what becomes of the output of the consumer of this name is of interest."""
        return True

    def called(self, name: str, call: LinearCall, output: Tensor) -> None:
        """A linear operator has read the parameter `name`."""

    def stepped(self, link: Link, output: Tensor) -> None:
        """Something was made of a tensor on the way from a consumer."""

    def normalised(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """A batch normalisation is about to run."""

    def made_of(self, given: Sequence[Tensor], made: Sequence[Tensor], name: str | None) -> None:
        """Tensors were made of others, by a consumer if it has a name."""

    def __torch_function__(
        self, function: Any, kinds: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the function, and follow what it returns."""
        kwargs = kwargs or {}
        if function is functional.multi_head_attention_forward:
            with self:
                return _unchecked(function)(*args, **kwargs)
        if function is functional.batch_norm:
            self.normalised(args, kwargs)
        call = linear_call(function, args, kwargs)
        name = self.names.first.get(id(call.weight)) if call is not None else None
        given = [*_tensors((*args, *kwargs.values()))]
        steps = self._steps(function, args, kwargs, given) if len(self._links) else []
        result = function(*args, **kwargs)
        made = [*_tensors((result,))]
        if not made and getattr(function, "__name__", "") == "__setitem__":
            made, steps = given[:1], [(link, None) for link, _ in steps]
        if made:
            self._follow(given, made, steps, name, call)
        return result

    def _steps(
        self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], given: Sequence[Tensor]
    ) -> list[tuple[Link, Step | None]]:
        """What this call is for each of the links that come in."""
        found = []
        for tensor in given:
            if links := self._links.get(tensor):
                step = step_of(function, args, kwargs, tensor, self.is_static)
                found += [(link, step) for link in links]
        return found

    def is_static(self, tensor: Tensor) -> bool:
        """Whether it is the network's, or made of what is."""
        return tensor in self._static

    def mark_static(self, tensor: Tensor) -> None:
        """Let it count as one."""
        self._static[tensor] = True

    def _follow(
        self,
        given: Sequence[Tensor],
        made: Sequence[Tensor],
        steps: Sequence[tuple[Link, Step | None]],
        name: str | None,
        call: LinearCall | None,
    ) -> None:
        is_static = all(self.is_static(tensor) for tensor in given)
        for tensor in made:
            if steps:
                self._links.pop(tensor, None)
            if is_static:
                self._static[tensor] = True
            else:
                self._static.pop(tensor, None)
        self.made_of(given, made, name)
        new = [self._next(link, step) for link, step in steps]
        if name is not None and call is not None:
            if self.is_followed(name):
                self._links[made[0]] = [Link(name)]
            self.called(name, call, made[0])
        elif len(made) == 1 and (links := [link for link in new if link is not None]):
            self._links[made[0]] = links
            for link in links:
                self.stepped(link, made[0])

    def _next(self, link: Link, step: Step | None) -> Link | None:
        link.uses += 1
        if step is None:
            return None
        new = Link(link.consumer, (*link.steps, step))
        link.next = new
        return new

    def start_of(self, output: Tensor) -> Link:
        """The link of what a consumer has just returned."""
        found: Link = self._links[output][0]
        return found


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among them and in their containers."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


def _unchecked(function: Any) -> Callable[..., Any]:
    """The same function of torch without its first question, whether somebody watches: within it, somebody does."""
    own = {**function.__globals__, "has_torch_function": lambda _: False}
    made = types.FunctionType(function.__code__, own, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made
