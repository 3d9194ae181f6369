"""Finds text in the cameras' pictures with a detection model and marks it on the monitor."""

import logging
import time
from logging.handlers import RotatingFileHandler

import panoramasdk
import words

MODEL = "text_detector"
# A line about speed and findings after so many pictures.
PICTURES_PER_REPORT = 25

log = logging.getLogger("text-finder")


class Application(panoramasdk.node):
    def __init__(self):
        super().__init__()
        threshold = self.inputs.threshold.get()
        words.BOX_PROBABILITY = min(1.0, max(0.0, float(threshold)))
        self.pictures = 0
        self.found = 0
        self.seconds = {"waiting": 0.0, "preparing": 0.0, "detecting": 0.0, "marking": 0.0, "showing": 0.0}
        log.info("text-finder is ready, threshold %.2f", words.BOX_PROBABILITY)

    def process(self):
        """One new picture of every camera: find, mark, show."""
        begin = time.monotonic()
        streams = self.inputs.video_in.get()
        begin = self._spent("waiting", begin)
        for stream in streams:
            if stream.is_cached:
                continue
            tensor = words.detector_input(stream.image)
            begin = self._spent("preparing", begin)
            answer = self.call({"x": tensor}, MODEL)
            begin = self._spent("detecting", begin)
            if answer is None:
                log.warning("the detector gave no answer for a picture of %s", stream.stream_id)
                continue
            found = words.boxes(answer[0])
            for (left, top, right, bottom), probability in found:
                stream.add_rect(left, top, right, bottom)
                stream.add_label("text %d %%" % round(probability * 100), left, max(0.0, top - 0.01))
            self.found += len(found)
            begin = self._spent("marking", begin)
        self.outputs.video_out.put(streams)
        self._spent("showing", begin)
        self.pictures += 1
        if self.pictures == 1 or self.pictures % PICTURES_PER_REPORT == 0:
            self._report()

    def _spent(self, stage, begin):
        now = time.monotonic()
        self.seconds[stage] += now - begin
        return now

    def _report(self):
        count = 1 if self.pictures == 1 else PICTURES_PER_REPORT - (self.pictures == PICTURES_PER_REPORT)
        spent = ", ".join("%s %.0f" % (stage, 1000 * seconds / count) for stage, seconds in self.seconds.items())
        line = "picture %d: %.1f texts a picture; ms a picture: %s" % (self.pictures, self.found / count, spent)
        log.info(line)
        print(line, flush=True)
        self.found = 0
        self.seconds = dict.fromkeys(self.seconds, 0.0)


def main():
    handler = RotatingFileHandler("/opt/aws/panorama/logs/app.log", maxBytes=1000000, backupCount=2)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    print("text-finder starts", flush=True)
    try:
        application = Application()
        while True:
            application.process()
    except Exception:
        # The appliance starts the application again; this is where the reason is found.
        log.exception("text-finder ends because of an error")
        raise


if __name__ == "__main__":
    main()
