"""A trained restorer as ONNX of any size, tried before it is kept."""

import json
import warnings
from pathlib import Path
from typing import Any

from pipeline.inference.model import InRange
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing

LARGEST_DIFFERENCE = 1e-4
"""Between torch and ONNX, of values in [0, 1]; rounding makes some 1e-6."""
LARGEST_DIFFERENCE_HALF = 2e-2
"""The same in float16, whose numbers near 1 lie 5e-4 apart; 5 of 255."""
INPUT, OUTPUT = "degraded", "restored"
PRODUCER = "noise-space-adaptation"


def export_onnx(network: InRange, facts: dict[str, Any], path: Path, half: bool = False) -> None:
    """Write the network as ONNX, whole or not at all.

    ``half`` writes weights and multiplications in float16, half the size; input and output stay
    float32.

    The file is tried at another size than it was made with before it is kept: an exporter may
    write the sizes that it saw into it without a word.

    Raises:
        UserError: the packages for it are not installed, or the network cannot be written so.
    """
    import torch

    try:
        import onnx
        import onnxruntime  # noqa: F401  (tries the file)
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; pip install '.[export]'") from None
    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))
    factor = network.factor
    # sides of two and three times the factor: an example of 1 would be taken as fixed
    example = torch.zeros(2, 3, 2 * factor, 3 * factor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own future, none of the result
        try:
            program = torch.onnx.export(
                network.cpu(),
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch, 2: factor * rows, 3: factor * columns},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise _not_exportable(str(error)) from None
    assert program is not None
    model = _in_half(program.model_proto) if half else program.model_proto
    model.producer_name = PRODUCER
    onnx.helper.set_model_props(
        model,
        {
            "multiple_of": str(factor),
            "range": "RGB in [0, 1], output not clamped",
            "precision": "fp16" if half else "fp32",
            "training": training_of(facts),
            "facts": json.dumps(facts),
        },
    )
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    _require_same_result(network, content, LARGEST_DIFFERENCE_HALF if half else LARGEST_DIFFERENCE)
    with replacing(path) as partial:
        partial.write_bytes(content)


def training_of(facts: dict[str, Any]) -> str:
    """Return in one line what a model was trained for and how, as far as its facts say."""
    known = ("task", "method", "seed", "steps")
    return ", ".join(f"{name} {facts[name]}" for name in known if facts.get(name) is not None)


def _in_half(model: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights too small for float16, which become 0
        halved = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    halved.topological_sort()  # the casts of input and output were put at the end
    return halved.model


def _require_same_result(network: InRange, content: bytes, largest: float) -> None:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for batch, rows, columns in ((1, 4, 6), (3, 3, 5)):
        sides = (rows * network.factor, columns * network.factor)
        given = torch.rand(batch, 3, *sides, generator=generator)
        try:
            (found,) = session.run([OUTPUT], {INPUT: given.numpy()})
        except Exception as error:  # its errors share no class, and any of them is the answer
            raise _not_exportable(str(error)) from None
        with torch.no_grad():
            difference = float((torch.from_numpy(found) - network(given)).abs().max())
        if not difference <= largest:
            raise _not_exportable(f"its results differ by {difference:.2g}")


def _not_exportable(reason: str) -> UserError:
    return UserError(
        "this restorer cannot be written as ONNX of any size"
        f" ({' '.join(reason.split())[:200]}); use the command restore, or another restorer"
    )
