"""The camera's clip: words moving over a background, what is right for every frame, and the frame's number in the picture.

    clip.py [--directory DIR]     renders (or finds in the cache) clip.h264 and truth.json, prints their directory

The clip is periodic: the last frame leads into the first, so it can be played in a loop. Every frame carries its number as
a row of black and white cells along the bottom edge (see `number_cells`), so that whoever captures a picture of a monitor
knows which frame it shows and, from truth.json, where the words in it are.

truth.json:
    {"width", "height", "frames_per_second",
     "code": {"top", "height", "cells"},       where the row of cells is, in pixels, and how many there are, of equal width
     "frames": [{"number", "cells": "1001…",   1 is white; no two frames have the same
                 "words": [{"text", "box": [left, top, right, bottom]}]}]}     pixels, right and bottom exclusive

Needs: python3-pil, fonts-dejavu-core, ffmpeg (with libx264; a program of its own, not linked to anything).
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 320, 192
FRAMES_PER_SECOND = 5
SECONDS = 60
FRAMES = FRAMES_PER_SECOND * SECONDS
FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"
FONT_SIZE = 20
SEED = 20261122

CODE_HEIGHT = 6
CODE_CELLS = 32
COLUMNS, ROWS = 2, 3
# Pixels between a word and the side of its place.
MARGIN = 14
# How often a place's word changes, in seconds; a divisor of SECONDS.
WORD_SECONDS = 10

WORDS = (
    "BELVEDERE PANORAMA CAMERA GARDEN RIVER MARKET STATION BRIDGE HARBOUR LIBRARY THEATRE MUSEUM WINDOW TOWER CASTLE "
    "MOUNTAIN FOREST ISLAND VALLEY SUMMER WINTER AUTUMN SPRING MORNING EVENING PLATFORM TICKET BAKERY COFFEE KITCHEN "
    "SILVER COPPER GOLDEN ORANGE PURPLE VIOLET CRIMSON Street Avenue Corner Square Entrance Welcome Parking Airport "
    "Police Doctor School Church Hotel Museum Garage Office Factory Engine Signal Warning Danger Caution Open Closed"
).split()


def crc16(value):
    """CRC-16/CCITT-FALSE of a number in two bytes, most significant first."""
    crc = 0xFFFF
    for byte in value.to_bytes(2, "big"):
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc


def number_cells(number):
    """The 32 cells of a frame number, True for white: white, black, 12 bits of number, 16 bits of CRC, black, white."""
    bits = [number >> bit & 1 for bit in range(11, -1, -1)] + [crc16(number) >> bit & 1 for bit in range(15, -1, -1)]
    return [True, False] + [bool(bit) for bit in bits] + [False, True]


def plan_words(font, seed=SEED):
    """For every place and every spell of WORD_SECONDS: the word, its colour, and how it moves."""
    choice = random.Random(seed)
    spells = SECONDS // WORD_SECONDS
    words = WORDS[:]
    choice.shuffle(words)
    plan, taken = [], 0
    for place in range(COLUMNS * ROWS):
        spell_plans = []
        for _ in range(spells):
            text = words[taken % len(words)]
            taken += 1
            spell_plans.append(
                {
                    "text": text,
                    "ink": choice.choice([(16, 16, 24), (24, 16, 64), (64, 16, 16), (0, 40, 24)])
                    if (place + taken) % 2
                    else choice.choice([(16, 16, 16), (32, 24, 72)]),
                    "phase": choice.random() * 2 * math.pi,
                    "turns": choice.choice([1, 2]),
                }
            )
        plan.append(spell_plans)
    return plan


def background(number):
    """A soft gradient that drifts, with two discs and a bar that are no words."""
    turn = 2 * math.pi * number / FRAMES
    small = Image.new("RGB", (8, 6))
    for y in range(6):
        for x in range(8):
            small.putpixel(
                (x, y),
                (
                    int(196 + 24 * math.sin(turn + x * 0.7)),
                    int(204 + 20 * math.sin(turn + y * 0.9 + 1)),
                    int(210 + 24 * math.sin(turn + (x + y) * 0.5 + 2)),
                ),
            )
    picture = small.resize((WIDTH, HEIGHT), Image.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for index, (size, shade) in enumerate([(34, (170, 150, 190)), (46, (150, 185, 165))]):
        x = WIDTH / 2 + math.cos(turn * (index + 1) + index * 2) * WIDTH * 0.36
        y = HEIGHT / 2 + math.sin(turn * (index + 1) + index) * HEIGHT * 0.3
        draw.ellipse([x - size, y - size, x + size, y + size], fill=shade)
    return picture


def render(number, plan, font):
    """One frame: its picture and its words with their boxes."""
    picture = background(number)
    draw = ImageDraw.Draw(picture)
    words = []
    cell_width, cell_height = WIDTH / COLUMNS, (HEIGHT - CODE_HEIGHT) / ROWS
    second = number / FRAMES_PER_SECOND
    for place, spells in enumerate(plan):
        # The places change their words one after the other, not all at once.
        shifted = (second + place * WORD_SECONDS / len(plan)) % SECONDS
        word = spells[int(shifted // WORD_SECONDS) % len(spells)]
        left, top, right, bottom = draw.textbbox((0, 0), word["text"], font=font)
        width, height = right - left, bottom - top
        angle = 2 * math.pi * word["turns"] * (shifted % WORD_SECONDS) / WORD_SECONDS + word["phase"]
        # Never so near to each other that two words could be taken for one.
        room_x, room_y = max(0, cell_width - width - 2 * MARGIN), cell_height - height - 20
        x = (place % COLUMNS) * cell_width + (cell_width - width - room_x) / 2 + room_x * (0.5 + 0.5 * math.sin(angle))
        y = (place // COLUMNS) * cell_height + 10 + room_y * (0.5 + 0.5 * math.cos(angle * 2))
        x, y = round(x), round(y)
        draw.text((x - left, y - top), word["text"], font=font, fill=word["ink"])
        words.append({"text": word["text"], "box": [x, y, x + width, y + height]})
    cell = WIDTH // CODE_CELLS
    for index, white in enumerate(number_cells(number)):
        shade = 235 if white else 20
        draw.rectangle(
            [index * cell, HEIGHT - CODE_HEIGHT, (index + 1) * cell - 1, HEIGHT - 1], fill=(shade, shade, shade)
        )
    return picture, words


def make(directory):
    """Renders and encodes the clip into `directory`."""
    font = ImageFont.truetype(FONT, FONT_SIZE)
    plan = plan_words(font)
    encoder = subprocess.Popen(
        ["ffmpeg", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}",
         "-r", str(FRAMES_PER_SECOND), "-i", "-", "-an", "-c:v", "libx264", "-profile:v", "baseline", "-pix_fmt", "yuv420p",
         "-preset", "medium", "-crf", "18", "-g", str(FRAMES_PER_SECOND), "-keyint_min", str(FRAMES_PER_SECOND),
         "-sc_threshold", "0", "-bf", "0", "-threads", "1",
         # An access unit delimiter before every picture makes the stream easy to cut; repeated parameter sets let a
         # client begin at any key frame.
         "-x264-params", "aud=1:repeat-headers=1:sliced-threads=0:colormatrix=smpte170m:fullrange=off",
         "-f", "h264", str(directory / "clip.h264")],
        stdin=subprocess.PIPE,
    )
    frames = []
    for number in range(FRAMES):
        picture, words = render(number, plan, font)
        encoder.stdin.write(picture.tobytes())
        cells = "".join("01"[white] for white in number_cells(number))
        frames.append({"number": number, "cells": cells, "words": words})
    encoder.stdin.close()
    if encoder.wait() != 0:
        sys.exit("clip.py: ffmpeg could not encode the clip; is Debian's ffmpeg installed?")
    truth = {
        "width": WIDTH, "height": HEIGHT, "frames_per_second": FRAMES_PER_SECOND,
        "code": {"top": HEIGHT - CODE_HEIGHT, "height": CODE_HEIGHT, "cells": CODE_CELLS},
        "frames": frames,
    }
    (directory / "truth.json").write_text(json.dumps(truth) + "\n")


def clip_directory():
    """Where clip.h264 and truth.json are; makes them when they are not there yet."""
    key = hashlib.sha256(pathlib.Path(__file__).read_bytes() + pathlib.Path(FONT).read_bytes()).hexdigest()[:16]
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "belvedere" / "camera"
    directory = cache / key
    if not (directory / "truth.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        work = pathlib.Path(tempfile.mkdtemp(dir=cache))
        try:
            make(work)
            os.rename(work, directory)
        except OSError:
            # Somebody else was quicker; theirs has the same bytes.
            if not (directory / "truth.json").exists():
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return directory


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Renders the camera's clip and prints the directory it is in.")
    arguments.add_argument("--directory", type=pathlib.Path, help="render into this directory instead of the cache")
    chosen = arguments.parse_args().directory
    if chosen:
        chosen.mkdir(parents=True, exist_ok=True)
        make(chosen)
    print(chosen or clip_directory())
