"""The base class of applications."""

from ._link import Deadline, Link
from ._model import Model
from ._ports import make_inputs, make_outputs


class node(object):
    """One code node of the application's graph.

    The ports are there as soon as the object is, whether or not a subclass calls `super().__init__()`: most
    applications never do.
    """

    def __new__(cls, *arguments, **named):
        self = super(node, cls).__new__(cls)
        self._link = Link()
        self._models = {name: Model(self._link, name) for name in self._link.configuration["models"]}
        self.inputs = make_inputs(self._link)
        self.outputs = make_outputs(self._link)
        return self

    def __init__(self, *arguments, **named):
        pass

    def call(self, *arguments, **named):
        """Runs a model: `call(inputs, name)` or `call(name, inputs)`, with `time_out` in seconds as a third argument.

        `inputs` is a dictionary of arrays by the model's input names, a single array, or media. Names that are none of the
        model's stand for its inputs in their order, as many as it has: packages' descriptors often use other names than the
        model. (A line on standard error says so where there is more than one.) A mixture is refused. Gives the outputs as a
        tuple of arrays. Raises KeyError for a model that the graph does not have, TimeoutException, and ModelError.
        """
        known = ("name", "input", "time_out")
        for key in named:
            if key not in known:
                raise TypeError("call() got an unexpected argument %r" % key)
        name, value, time_out = (named.get(key) for key in known)
        rest = list(arguments)
        # The name is the text among the first two.
        for position, argument in enumerate(rest[:2]):
            if isinstance(argument, str) and name is None:
                name = rest.pop(position)
                break
        if rest and value is None:
            value = rest.pop(0)
        if rest and time_out is None:
            time_out = rest.pop(0)
        if rest or not isinstance(name, str) or value is None:
            raise TypeError("call() takes a model's name and its inputs")
        if name not in self._models:
            known = ", ".join(sorted(self._models)) or "none"
            raise KeyError("%s: the graph has no model node of that name (it has: %s)" % (name, known))
        return self._models[name].call(value, Deadline(time_out))
