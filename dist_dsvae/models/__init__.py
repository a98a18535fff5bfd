"""The networks of the paper: encoders, decoder, discriminator, latent classifier, mixture prior."""
