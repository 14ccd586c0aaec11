"""python -m benchmark.new data|method|suite NAME: write files to start from, which run as they are.

``data NAME --folder DIR`` writes a suite of three methods over a folder of images; ``method NAME`` a method, its
configuration and a suite; ``suite NAME`` a suite of methods that ship. Existing files are never overwritten.
"""

import importlib.util
import json
import keyword
import re
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import Any

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command, escaped, shown
from benchmark.suite.class_paths import PACKAGES, VARIABLE
from benchmark.system.files import write_text
from benchmark.system.names import NAME
from benchmark.system.surroundings import absolute, path_option

LARGEST, SCALED = 64, 32
"""Largest side of square images that are kept as they are, and side that others are scaled to, in pixels."""
SHARE = 0.2
"""Share of the images that are set apart as test part, where there is none."""

DATA = """\
# Three methods on the images in {name}; the settings are those of the digits suite, for images of few pixels.
# Own networks and steps: copy a configuration from configs/digits beside this file and name the copy.
reference: judge
cells:
  judge:
    config: digits/supervised.yaml
    seed: 1000
    set: &images {{data.class_path: datamodules.image_folder.ImageFolder, {settings}}}
  supervised: {{config: digits/supervised.yaml, set: *images}}
  score_model: {{config: digits/score_model.yaml, set: *images}}
  noisy_classifier: {{config: digits/noisy_classifier.yaml, guidance_scales: [1, 3], set: *images}}
  held_out_images: {{images: test, floor: true}}
"""
SUITE = """\
# Methods side by side: one cell a row. docs/suites.md has every key.
reference: judge
seeds: [0]
protocol: {samples: 1000, levels: 20}
cells:
  judge: {config: digits/supervised.yaml, seed: 1000}
  score_model: {config: digits/score_model.yaml}
  noisy_classifier: {config: digits/noisy_classifier.yaml, guidance_scales: [1, 3]}
  denoising_assisted: {config: digits/denoising_assisted.yaml, guidance_scales: [1, 3]}
  class_gaussians: {config: digits/class_gaussians.yaml, floor: true, guidance_scales: [1]}
"""
METHOD = '''\
"""{title}: a denoiser and a classifier of noisy images, trained together."""

import torch
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import NoisyClassifier, noisy_cross_entropy
from methods.diffusion.samplers import Sampler


class {title}(Method):
    """Denoising and classification of ``x_t``, ``E[w(t) ||D(x_t, t) - x||^2] + E[-log p(y | x_t, t)]``.

    Args:
        denoiser: ``E[x | x_t]``, trained here.
        network: ``(x_t, log sigma) -> logits``.
        sampler: Turns noise into images.
        guidance_scale: Weight of the class score in sampling.
    """

    def __init__(self, denoiser: Denoiser, network: nn.Module, sampler: Sampler, guidance_scale: float = 1.0) -> None:
        super().__init__(denoiser, NoisyClassifier(denoiser, network), sampler, guidance_scale=guidance_scale)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        t = self.denoiser.process.sample_times(len(x), x.device)
        return {{
            "denoise": self.denoiser.matching_loss(x, t, torch.randn_like(x)).mean(),
            "classify": noisy_cross_entropy(self.classifier, x, y),
        }}
'''
CONFIGURATION = """\
# {title} on digits. Sizes of images and the number of classes come from the data.
model:
  class_path: {name}.{title}
  init_args:
    denoiser:
      class_path: methods.diffusion.denoiser.EDMDenoiser
      init_args:
        network:
          class_path: methods.networks.unet.UNet
          init_args: {{width: 16, multipliers: [1, 2], blocks: 1, attention: []}}
        process:
          class_path: methods.diffusion.process.VarianceExploding
          init_args: {{sigma_min: 0.01, sigma_max: 20.0}}
        data_std: 0.72
    network: {{class_path: methods.networks.wrn.WideResNet, init_args: {{depth: 10, width: 1}}}}
    sampler: {{class_path: methods.diffusion.samplers.Heun, init_args: {{steps: 18}}}}
data: {{class_path: datamodules.digits.Digits, init_args: {{batch_size: 128}}}}
optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 2.0e-3, weight_decay: 0.01}}}}
lr_scheduler: {{class_path: benchmark.training.schedules.WarmupCosine, init_args: {{steps: 1200, warmup: 50}}}}
ema: {{decay: 0.995}}
trainer: {{max_steps: 1200}}
"""
COMPARED = """\
# {title} beside methods that ship.
reference: judge
cells:
  judge: {{config: digits/supervised.yaml, seed: 1000}}
  score_model: {{config: digits/score_model.yaml}}
  noisy_classifier: {{config: digits/noisy_classifier.yaml, guidance_scales: [1, 3]}}
  {name}: {{config: {name}.yaml, guidance_scales: [1, 3]}}
"""


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.new", description=(__doc__ or "").partition("\n\n")[2])
    p.add_argument("kind", choices=("data", "method", "suite"), help="what to write")
    p.add_argument("name", metavar="NAME", help="name of the files, and of the data, method or suite in results")
    p.add_argument("--folder", metavar="DIR", type=path_option, help="data: folder of images, a folder for each class")
    p.add_argument("--out", metavar="DIR", type=path_option, help="where to write (default: the working folder)")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Write the files and print what to run."""
    options = parser().parse_args(argv)
    if (options.kind == "data") != (options.folder is not None):
        raise InputError("data needs --folder DIR" if options.kind == "data" else "--folder is for data alone")
    if not NAME.fullmatch(options.name):
        raise InputError(f"NAME must be up to 64 letters, digits, '.', '-' or '_', got {shown(options.name, 60)}")
    out = options.out or absolute(".")
    where = "." if options.out is None else shlex.quote(str(out))
    files, told = {"data": _data, "method": _method, "suite": _suite}[options.kind](options.name, where, options.folder)
    paths = {out / name: text for name, text in files.items()}
    for path in paths:
        if path.exists():
            raise InputError(f"{path} exists; choose another NAME or --out")
    out.mkdir(parents=True, exist_ok=True)
    for path, text in paths.items():
        write_text(path, text)
        print(f"written: {escaped(path)}")
    print(*told, sep="\n")
    return OK


def _suite(name: str, where: str, _: Any) -> tuple[dict[str, str], list[str]]:
    return {f"{name}.yaml": SUITE}, [f"run:     python -m benchmark.run --suite {where}/{name}.yaml"]


def _method(name: str, where: str, _: Any) -> tuple[dict[str, str], list[str]]:
    if not name.isidentifier() or keyword.iskeyword(name) or name in sys.stdlib_module_names:
        raise InputError(f"method: NAME becomes a Python module, such as my_method; got {shown(name)}")
    if _installed(name):
        raise InputError(f"method: {name} is an installed package, which the new file would hide; choose another NAME")
    title = "".join(part[:1].upper() + part[1:] for part in name.split("_")) or "Mine"
    files = {
        f"{name}.py": METHOD.format(title=title),
        f"{name}.yaml": CONFIGURATION.format(title=title, name=name),
        f"{name}_suite.yaml": COMPARED.format(title=title, name=name),
    }
    return files, [
        f"before:  export {VARIABLE}={name} PYTHONPATH={where}",
        f"train:   lightning fit --config {where}/{name}.yaml",
        f"compare: python -m benchmark.run --suite {where}/{name}_suite.yaml",
    ]


def _installed(name: str) -> bool:
    """Tell whether Python finds a package or module of this name that is none of the user's own."""
    found = importlib.util.find_spec(name)
    places = [] if found is None else [found.origin or "", *(found.submodule_search_locations or ())]
    return name in PACKAGES or any(Path(p).is_relative_to(sysconfig.get_path("purelib")) for p in places)


def _data(name: str, where: str, folder: Path) -> tuple[dict[str, str], list[str]]:
    settings, classes, count = _described(folder)
    written = ", ".join(f"data.init_args.{key}: {json.dumps(value)}" for key, value in settings.items())
    text = DATA.format(name=settings["name"], settings=written)
    some = ", ".join(shown(c, 30) for c in classes[:8]) + (", ..." if len(classes) > 8 else "")
    return {f"{name}.yaml": text}, [
        f"found:   {count} images in {len(classes)} classes: {some}",
        f"costs:   python -m benchmark.run --suite {where}/{name}.yaml --dry-run",
        f"run:     python -m benchmark.run --suite {where}/{name}.yaml",
    ]


def _described(folder: Path) -> tuple[dict[str, Any], list[str], int]:
    """Settings of the data set, names of its classes, and its number of images.

    Raises:
        InputError: If the folder cannot be a data set.
    """
    print("reading the headers of the images", flush=True)
    from datamodules.image_files import folders_of_parts, opened

    folder = folder.resolve()
    if not folder.is_dir():
        raise InputError(f"--folder: no folder {folder}")
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", folder.name):
        raise InputError(f"--folder: rename {folder}: its name must have letters, digits, '.', '_' and '-' alone")
    whole = not any((folder / part).is_dir() for part in ("train", "test"))
    try:
        found = [*folders_of_parts(folder, SHARE if whole else None).values()]
        files = [file for classes in found for of_class in classes.values() for file in of_class]
        sizes = {opened(file).image.size for file in files}
    except (ValueError, OSError) as error:
        raise InputError(f"--folder: {shown(error)}") from None
    settings = {"name": folder.name, "root": str(folder.parent)}
    settings |= {"test_fraction": SHARE} if whole else {}
    if len(found[0]) < 2:
        raise InputError(f"--folder: {folder} has images of one class; a classifier needs two or more")
    width, height = max(sizes)
    if len(sizes) > 1 or width != height or width > LARGEST or width % 4:
        settings["resize"] = SCALED
    return settings, list(found[0]), len(files)


if __name__ == "__main__":
    sys.exit(main())
