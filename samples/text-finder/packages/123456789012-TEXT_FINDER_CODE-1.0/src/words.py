"""What stands before and behind the detector: a picture becomes its input, its map of text becomes boxes.

Only numpy, and little of it: the application starts within seconds and runs where a desktop's libraries would not fit.
The detector is PP-OCR's (differentiable binarisation): input 1x3xHxW, output 1x1xHxW, each value the probability that
the pixel lies in the *core* of a text; cores are smaller than the text by a known rule, so boxes are grown again.
"""

import numpy

# The detector's input in pixels; both are multiples of 32, as its down-sampling stages want.
INPUT_WIDTH, INPUT_HEIGHT = 160, 96

# A pixel above this belongs to a core.
CORE_PROBABILITY = 0.3
# A core whose mean probability is below this is no text.
BOX_PROBABILITY = 0.5
# How far a core is grown: area x ratio / perimeter on every side. Less than the detector was trained for (1.5), because at
# this small input a core is already widened by half a pixel or more.
GROWTH = 0.4
# The detector's map lies this far (pixels) to the right of its input and below it, from down-sampling and up again.
SHIFT = 0.75
# Both were found with ../../../measure: the least overlap of a box with its word, of 1,800, is 0.66.

# Cores smaller than this (pixels of the detector's output, either side) are noise.
SMALLEST_SIDE = 2
# More boxes than this are not reported, whatever the picture shows.
MOST_BOXES = 100


def detector_input(picture):
    """A BGR picture (HxWx3 bytes) as the detector wants it: 1x3xINPUT_HEIGHTxINPUT_WIDTH, floats in -1...1."""
    height, width = picture.shape[:2]
    if height % INPUT_HEIGHT == 0 and width % INPUT_WIDTH == 0:
        # A whole number of pixels becomes one: their mean, the best small picture there is.
        down, across = height // INPUT_HEIGHT, width // INPUT_WIDTH
        total = numpy.zeros((INPUT_HEIGHT, INPUT_WIDTH, 3), numpy.uint16)
        for row in range(down):
            for column in range(across):
                total += picture[row::down, column::across]
        small = total.astype(numpy.float32) * (2.0 / (255.0 * down * across)) - 1.0
    else:
        rows = numpy.arange(INPUT_HEIGHT) * height // INPUT_HEIGHT
        columns = numpy.arange(INPUT_WIDTH) * width // INPUT_WIDTH
        small = picture[rows[:, None], columns[None, :]].astype(numpy.float32) * (2.0 / 255.0) - 1.0
    return numpy.ascontiguousarray(small.transpose(2, 0, 1)[None])


def connected_cores(mask):
    """The connected parts of a mask as (left, top, right, bottom), right and bottom exclusive.

    Works on runs of set pixels, row by row, with union-find: text fills few runs, so this is cheap in plain Python.
    """
    padded = numpy.zeros((mask.shape[0], mask.shape[1] + 2), numpy.int8)
    padded[:, 1:-1] = mask
    step = numpy.diff(padded, axis=1)
    rows, begins = numpy.nonzero(step == 1)
    ends = numpy.nonzero(step == -1)[1]
    parent = []
    box = []

    def root(index):
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    above, current, current_row = [], [], -1
    for row, begin, end in zip(rows.tolist(), begins.tolist(), ends.tolist()):
        if row != current_row:
            above = current if row == current_row + 1 else []
            current, current_row = [], row
        index = len(parent)
        parent.append(index)
        box.append([begin, row, end, row + 1])
        for other, other_begin, other_end in above:
            # Touching corners count as connected.
            if other_begin <= end and begin <= other_end:
                one, two = root(other), root(index)
                if one != two:
                    parent[two] = one
                    a, b = box[one], box[two]
                    box[one] = [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]
        current.append((index, begin, end))
    return [tuple(box[index]) for index in range(len(parent)) if parent[index] == index]


def boxes(probability):
    """The detector's output as boxes (left, top, right, bottom) in 0...1 of the picture, and their probabilities."""
    probability = numpy.asarray(probability, numpy.float32).reshape(probability.shape[-2:])
    height, width = probability.shape
    mask = probability > CORE_PROBABILITY
    found = []
    for left, top, right, bottom in connected_cores(mask):
        core_width, core_height = right - left, bottom - top
        if min(core_width, core_height) < SMALLEST_SIDE:
            continue
        inside = mask[top:bottom, left:right]
        score = float(probability[top:bottom, left:right][inside].mean())
        if score < BOX_PROBABILITY:
            continue
        grow = core_width * core_height * GROWTH / (2.0 * (core_width + core_height))
        found.append(
            (
                score,
                (
                    max(0.0, (left - grow - SHIFT) / width),
                    max(0.0, (top - grow - SHIFT) / height),
                    min(1.0, (right + grow - SHIFT) / width),
                    min(1.0, (bottom + grow - SHIFT) / height),
                ),
            )
        )
    found.sort(reverse=True)
    return [(box, score) for score, box in found[:MOST_BOXES]]
