"""vae_exp: a bench for variational autoencoders."""
