"""What a trained run is scored by: `(trained, options) -> numbers by name`, nats per image unless said otherwise."""
