"""What goes over the wire and into the log: frames of signals. Layout: docs/adr/0005-frame-encoding.md."""

from bitactor.protocol.frames import Frame, FrameError, decode_frame, encode_frame

__all__ = ["Frame", "FrameError", "decode_frame", "encode_frame"]
