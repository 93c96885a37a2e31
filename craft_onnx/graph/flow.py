"""How the picture flows through a graph: which tensors alone carry all of it to the logits."""

from collections.abc import Iterator
from functools import cached_property

import onnx_ir as ir

from craft_onnx.graph.dependence import Dependence, dependences
from craft_onnx.graph.load import image_input, logits_output
from craft_onnx.graph.values import dimensions, used_values, with_shapes


class Flow:
    """A model with its shapes inferred, and what its tensors carry of the picture.

    Parameters
    ----------
    model : onnx_ir.Model
        Is not changed; everything here refers to the copy `self.model`.

    Raises
    ------
    InputError
        If the model has several inputs or outputs.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = with_shapes(model)
        self.image = image_input(self.model)
        self.logits = logits_output(self.model)
        self.nodes = list(self.model.graph)
        self.values = {value.name: value for value in self._all_values() if value.name}

    def _all_values(self) -> Iterator[ir.Value]:
        graph = self.model.graph
        yield from [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]

    @cached_property
    def position(self) -> dict[ir.Value, int]:
        """Index of the node that computes a value, -1 for the image."""
        made = {value: index for index, node in enumerate(self.nodes) for value in node.outputs}
        return {self.image: -1} | made

    @cached_property
    def dependence(self) -> dict[ir.Value, Dependence]:
        """What every value depends on."""
        return dependences(self.model.graph, self.image)

    def carries_image(self, value: ir.Value) -> bool:
        """True where a value depends on the picture's pixels."""
        return self.dependence.get(value) == Dependence.IMAGE

    @cached_property
    def last_use(self) -> dict[ir.Value, int]:
        """Index of the last node that reads a value on its way to the logits; values that lead nowhere are left out."""
        last = {self.logits: len(self.nodes)}
        for index in reversed(range(len(self.nodes))):
            node = self.nodes[index]
            if any(value in last and self.carries_image(value) for value in node.outputs):
                for value in used_values(node):
                    last.setdefault(value, index)
        return last

    @cached_property
    def separators(self) -> list[ir.Value]:
        """Values that alone carry the picture to the logits, in execution order, without the image and the logits.

        After the node that computes such a value nothing else that depends on the picture is still to be read. If a
        path went around the value, something of it would be: so one pass over the nodes finds all.
        """
        ends = [0] * (len(self.nodes) + 1)
        alive, found = 0, []
        for index in range(-1, len(self.nodes)):
            alive -= ends[index] if index >= 0 else 0
            for value in (self.image,) if index < 0 else self.nodes[index].outputs:
                if value in self.last_use and self.carries_image(value):
                    ends[self.last_use[value]] += 1
                    alive += 1
            if alive == 1 and index >= 0:
                found += [value for value in self.nodes[index].outputs if value in self.last_use]
        return [value for value in found if value is not self.logits and self.carries_image(value)]

    def also_needed(self, value: ir.Value) -> list[ir.Value]:
        """Values beside `value` that whatever follows it reads, in execution order; empty for a separator."""
        after = {value}
        needed: dict[ir.Value, None] = {}
        for node in self.nodes:
            read = [v for v in used_values(node) if self.carries_image(v)]
            if any(v in after for v in read) and any(self.carries_image(v) for v in node.outputs):
                after.update(node.outputs)
                needed.update(dict.fromkeys(v for v in read if self.last_use.get(v) is not None))
        return sorted((v for v in needed if v not in after), key=self.position.__getitem__)

    def batch_first(self, value: ir.Value) -> bool:
        """False where the first axis is known to be something else than the batch."""
        shape, batch = dimensions(value), (dimensions(self.image) or (None,))[0]
        if shape is None:
            return True
        if not shape:
            return False
        return shape[0] == batch or not (isinstance(shape[0], int) or shape[0] in self._static_names)

    @cached_property
    def _static_names(self) -> set[int | str | None]:
        """Names of the image's other dimensions: an axis so named is not the batch."""
        return set((dimensions(self.image) or ())[1:]) - {None}
