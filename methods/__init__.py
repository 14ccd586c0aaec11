"""Methods of the benchmark, one file each.

Docstrings name the papers by tag:

(a) Training Diffusion Classifiers with Denoising Assistance, arXiv:2306.09192
(c) Classification Diffusion Models, arXiv:2402.10095
(d) Score-based Conditional Generation with Fewer Labeled Data by Self-calibrating Classifier Guidance, arXiv:2307.04081
(e) Learning Data Representations with Joint Diffusion Models, arXiv:2301.13622
"""

UNLABELED = -1
"""Label of an image that has none."""
