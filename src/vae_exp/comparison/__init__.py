"""Many runs side by side: what differs, what compares, means over seeds; read from their folders, without torch."""
