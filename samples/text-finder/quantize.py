"""Makes the detector cheap where floats are dear: its convolutions calculate with 8-bit integers.

    quantize.py ORIGINAL.onnx RESULT.onnx        run by ./build, in an environment with onnx, onnxruntime, numpy and pillow

An appliance under emulation needs 0.8 s of processor time for a picture with the original and 0.25 s with this one (see
README.md for how that was measured); what it finds is the same (./measure). The input gets a fixed size, the weights become
integers, and the range of every activation is taken from pictures like the sample camera's, but of another seed: other words
in other places than those that the text finder is judged by.

The result may differ in its last digits between processors, since ranges are calculated in floats.
"""

import importlib.util
import pathlib
import sys
import tempfile

import numpy
import onnx
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import ImageFont

HERE = pathlib.Path(__file__).resolve().parent
CALIBRATION_SEED = 1
EVERY = 15


def load(path):
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Pictures(CalibrationDataReader):
    """The detector's input for pictures of the calibration seed."""

    def __init__(self, name):
        clip = load(HERE.parent / "camera" / "clip.py")
        words = load(next((HERE / "packages").glob("*-TEXT_FINDER_CODE-1.0")) / "src" / "words.py")
        font = ImageFont.truetype(clip.FONT, clip.FONT_SIZE)
        plan = clip.plan_words(font, CALIBRATION_SEED)
        self.inputs = iter(
            {name: words.detector_input(numpy.asarray(clip.render(number, plan, font)[0])[:, :, ::-1])}
            for number in range(0, clip.FRAMES, EVERY)
        )
        self.size = [1, 3, words.INPUT_HEIGHT, words.INPUT_WIDTH]

    def get_next(self):
        return next(self.inputs, None)


def main():
    original, result = sys.argv[1:]
    # Quantisation per channel needs version 13 of the operators, the model comes with 12.
    model = version_converter.convert_version(onnx.load(original), 17)
    pictures = Pictures(model.graph.input[0].name)
    for dimension, value in zip(model.graph.input[0].type.tensor_type.shape.dim, pictures.size):
        dimension.ClearField("dim_param")
        dimension.dim_value = value
    with tempfile.TemporaryDirectory() as work:
        fixed, prepared = f"{work}/fixed.onnx", f"{work}/prepared.onnx"
        onnx.save(model, fixed)
        quant_pre_process(fixed, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, result, pictures, quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv"],
        )


if __name__ == "__main__":
    main()
