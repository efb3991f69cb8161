"""What goes over the wire and into the log: frames, messages, records, refusals. The document: docs/protocol.md."""

from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import Frame, FrameError, decode_frame, encode_frame

__all__ = ["Code", "Frame", "FrameError", "ProtocolError", "decode_frame", "encode_frame"]
