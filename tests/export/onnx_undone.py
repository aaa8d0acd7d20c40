"""What rounded weights of a graph stand for, by the onnx package's own reference of the operator that undoes them."""

from __future__ import annotations

from typing import Any

import numpy as np


def undone(graph: Any) -> dict[str, np.ndarray]:
    """Return what each DequantizeLinear of a weight stands for, (in, out)."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    stored = {tensor.name: tensor for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            output = onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT16, None)
            one = onnx.helper.make_graph([node], "one", [], [output], [stored[name] for name in node.input])
            model = onnx.helper.make_model(one, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
            found[node.output[0]] = ReferenceEvaluator(model).run(None, {})[0]
    return found
