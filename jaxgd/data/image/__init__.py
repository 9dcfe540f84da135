"""Pictures of handwritten digits: decode them, tell ink from paper, find the digits, and fit each to a frame."""

from jaxgd.data.image.decode import decode, read_picture
from jaxgd.data.image.digits import Digit, find_digits
from jaxgd.data.image.frame import Frame, fit_to_frame, frame_of
from jaxgd.data.image.paper import Picture, separate

__all__ = ["Digit", "Frame", "Picture", "decode", "find_digits", "fit_to_frame", "frame_of", "read_picture", "separate"]
