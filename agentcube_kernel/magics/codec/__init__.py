"""Variables as files that carry no code: JSON for plain data, npy for arrays, Arrow or columns for frames.

The modules named in `shipping.MODULES` run on both sides: here, and as source inside the sandbox, so they import each
other and the standard library alone, and NumPy, pandas and pyarrow where they are used. A file holds the binary parts
one after the other and then one JSON tree that refers to them; its last eight bytes are the length of the tree.

Reading never runs anything that was read, unless the reader allows pickle. What is not of the stated shape, or would
take far more memory or time than its size suggests, raises `CodecError`.
"""

from .decoder import Decoder
from .encoder import Encoder
from .format import MAGIC, CodecError, StoppedError
from .service import dump, store

__all__ = ["MAGIC", "CodecError", "Decoder", "Encoder", "StoppedError", "dump", "store"]
