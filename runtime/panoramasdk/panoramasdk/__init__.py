"""The AWS Panorama application SDK's face, for applications on a Belvedere appliance.

    import panoramasdk

    class Application(panoramasdk.node):
        def process(self):
            streams = self.inputs.video_in.get()
            for stream in streams:
                results = self.call({"data": prepare(stream.image)}, "model_node")
                stream.add_label("hello", 0.1, 0.1)
            self.outputs.video_out.put(streams)

Pure Python (3.6 or newer) and numpy, so that it can be mounted into any application's image. Pictures and tensors come
and go by shared memory. Services of the appliance may restart at any time: calls wait for them, applications never end
because of it.
"""

from ._errors import ModelError, TimeoutException
from ._media import media
from ._node import node

__version__ = "1.2.0"

__all__ = ["ModelError", "TimeoutException", "media", "node"]
