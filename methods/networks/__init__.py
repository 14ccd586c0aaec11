"""Networks, each a function of images and of the log noise level."""
