"""Export a trained restorer as ONNX, and write its model card.

ONNX: input 'degraded' and output 'restored', (batch, 3, height, width) float32 RGB in [0, 1],
the output not clamped. Batch, height and width are free, both sides multiples of the network's
factor. The file's metadata holds that factor ('multiple_of'), the range of values, what it was
trained for and the model's facts. With --fp16 weights and multiplications are float16; input and
output stay float32. Every file is tried against the model before it is kept. Needs the optional
packages: pip install '.[export]'.
"""

from pathlib import Path

from pipeline.commands import parser
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text
from pipeline.runtime.paths import find_model


def main(words: list[str]) -> int:
    """Write what the command line asks for.

    Raises:
        UserError: no model, a damaged one, missing packages.
    """
    given = parser("export", __doc__)
    given.add_argument("model", help="a model.safetensors, or a run as denoise/noise_space-0")
    given.add_argument("--onnx", type=Path, metavar="FILE")
    given.add_argument("--fp16", action="store_true", help="of --onnx: half the size")
    given.add_argument("--card", type=Path, metavar="FILE", help="model card, Markdown")
    arguments = given.parse_args(words)
    if not (arguments.onnx or arguments.card):
        given.error("nothing to write: give --onnx FILE, --card FILE or both")
    if arguments.fp16 and not arguments.onnx:
        given.error("--fp16 is of --onnx FILE, which is not given")
    for option, file in (("--onnx", arguments.onnx), ("--card", arguments.card)):
        if file and file.is_dir():
            raise UserError(f"{option} {file}: is a folder; expected the name of a file")
    path = find_model(arguments.model)
    from pipeline.inference.model import load_network  # imports torch

    network, facts = load_network(path)
    if arguments.onnx:
        from pipeline.inference.onnx import export_onnx

        export_onnx(network, facts, arguments.onnx, arguments.fp16)
        print(f"{arguments.onnx}: sides must be multiples of {network.factor}")
    if arguments.card:
        from pipeline.inference.model_card import model_card

        write_text(arguments.card, model_card(path, network, facts))
        print(f"{arguments.card}: written")
    return 0
