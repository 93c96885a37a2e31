"""Arrays to figures and overlays; knows numpy, OpenCV and matplotlib, and nothing of the other parts."""
