"""An ONNX file as a torch graph, so that what Keras or others trained can be cut and explained like the rest.

Keras writes none itself: ``python -m tf2onnx.convert --keras model.h5 --output model.onnx``. Its networks take images
channels last, and most end in a softmax; the graph given here takes channels first and ends before the softmax.
"""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from app.errors import WeightsError

__all__ = ["network_of"]


def _share(graph: Any) -> None:
    """Lets equal constants that the file holds once be read directly, not through copies, which hide that they are."""
    stored = {each.name for each in graph.initializer}
    copies = [node for node in graph.node if node.op_type == "Identity" and node.input[0] in stored]
    of = {node.output[0]: node.input[0] for node in copies}
    for node in copies:
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [of.get(name, name) for name in node.input]


def _converted(data: bytes) -> tuple[fx.GraphModule, Any]:
    try:
        import onnx
        from onnx2torch import convert
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"An ONNX file needs the package {error.name}. In the clone: python -m pip install '.[onnx]'."
        ) from None
    try:
        file = onnx.load_from_string(data)
        _share(file.graph)
        return convert(file).eval(), file
    except NotImplementedError as error:
        reason = str(error).splitlines()[0][:120]
        raise WeightsError(f"The ONNX file holds an operation that is not known here: {reason}.") from None
    except Exception as error:  # noqa: BLE001 - what a file holds is whoever wrote it's affair
        raise WeightsError(f"The file cannot be read as ONNX ({type(error).__name__}).") from None


def network_of(data: bytes) -> fx.GraphModule:
    """What an ONNX file computes.

    Args:
        data: the file.

    Returns:
        A graph from pixels (N, 3, S, S) to one score a class (N, C), before a softmax at its end.

    Raises:
        WeightsError: it cannot be read, holds unknown operations, or has not one input and one output.
    """
    module, file = _converted(data)
    stored = {each.name for each in file.graph.initializer}
    inputs = [each for each in file.graph.input if each.name not in stored]
    if len(inputs) != 1 or len(file.graph.output) != 1:
        raise WeightsError("The ONNX file has to take one image and give one list of scores.")
    graph = module.graph
    (pixels,) = (node for node in graph.nodes if node.op == "placeholder")
    sides = [side.dim_value for side in inputs[0].type.tensor_type.shape.dim]
    if len(sides) == 4 and sides[1] != 3 and sides[3] == 3:
        with graph.inserting_after(pixels):
            last = graph.call_method("permute", (pixels, 0, 2, 3, 1))
        pixels.replace_all_uses_with(last, delete_user_cb=lambda user: user is not last)
    (output,) = (node for node in graph.nodes if node.op == "output")
    end = output.args[0][0] if isinstance(output.args[0], (tuple, list)) else output.args[0]
    if isinstance(end, fx.Node) and end.op == "call_module":
        layer = module.get_submodule(str(end.target))
        if isinstance(layer, nn.Softmax) or "Softmax" in type(layer).__name__:
            end = end.args[0]
    output.args = (end,)
    graph.eliminate_dead_code()
    module.recompile()
    return module
