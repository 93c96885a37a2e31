"""The HTML page: one file and a folder of pictures, opened with a browser."""
