"""What a trained run is used for: `(trained, out, options) -> numbers`, pictures and arrays are written to `out`."""
