"""Mathematics of diffusion: process, denoiser, guidance, samplers, likelihood. No networks."""
