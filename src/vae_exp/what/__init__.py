"""What is made of a trained run: `(trained, out, options) -> numbers`, with pictures and arrays in the folder `out`."""
