"""The autoencoders of diffusers, in its own layout: a folder with config.json and diffusion_pytorch_model.safetensors.

[0] Hugging Face, Diffusers, https://huggingface.co/docs/diffusers/api/models/overview
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldbench.official import Converted, Entry
from ldbench.official.transformers_names import timm_name

if TYPE_CHECKING:
    from torch import Tensor

    from ldbench.core.latent_stats import LatentStats

log = logging.getLogger(__name__)

DIFFUSERS = "https://github.com/huggingface/diffusers"
WHERE = "Download the folder of {} from the Hugging Face hub."
LDM = "Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022, arXiv:2112.10752"
SDXL = "Podell et al., SDXL, ICLR 2024, arXiv:2307.01952"
SD3 = (
    "Esser et al., Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, ICML 2024, arXiv:2403.03206"
)
FLUX = "Black Forest Labs, FLUX, GitHub 2024, https://github.com/black-forest-labs/flux"
EQVAE = "Kouzelis et al., EQ-VAE: Equivariance Regularized Latent Space, ICML 2025, arXiv:2502.09509"
REPAE = "Leng et al., REPA-E: Unlocking VAE for End-to-End Tuning, ICCV 2025, arXiv:2504.10483"
DCAE = "Chen et al., Deep Compression Autoencoder, ICLR 2025, arXiv:2410.10733"
TAESD = "Bohan, Tiny AutoEncoder for Stable Diffusion, GitHub 2023, https://github.com/madebyollin/taesd"
QWEN = "Wu et al., Qwen-Image Technical Report, arXiv 2025, arXiv:2508.02324"
HUNYUAN = "Tencent, HunyuanImage 2.1, GitHub 2025, https://github.com/Tencent-Hunyuan/HunyuanImage-2.1"
RAE = "Zheng et al., Diffusion Transformers with Representation Autoencoders, arXiv 2025, arXiv:2510.11690"
PUBLISHED = {  # name -> repository (with the folder), license of the weights, citation
    "sd_vae_ft_mse": ("stabilityai/sd-vae-ft-mse", "MIT", LDM),
    "sd_vae_ft_ema": ("stabilityai/sd-vae-ft-ema", "MIT", LDM),
    "sdxl_vae": ("stabilityai/sdxl-vae", "MIT", SDXL),
    "sdxl_vae_fp16_fix": ("madebyollin/sdxl-vae-fp16-fix", "MIT", SDXL),
    "sd35_vae": ("stabilityai/stable-diffusion-3.5-medium/vae", "Stability AI Community License; gated", SD3),
    "flux_vae": ("black-forest-labs/FLUX.1-schnell/vae", "Apache-2.0", FLUX),
    "flux2_vae": ("black-forest-labs/FLUX.2-dev/vae", "Apache-2.0 for this folder; gated", FLUX),
    "eq_vae": ("zelaki/eq-vae", "see its page; the code repository has no license", EQVAE),
    "eq_vae_ema": ("zelaki/eq-vae-ema", "see its page; the code repository has no license", EQVAE),
    "e2e_sdvae": ("REPA-E/e2e-sdvae-hf", "MIT", REPAE),
    "e2e_vavae": ("REPA-E/e2e-vavae-hf", "MIT", REPAE),
    "e2e_invae": ("REPA-E/e2e-invae-hf", "MIT", REPAE),
    "dc_ae_f32c32": ("mit-han-lab/dc-ae-f32c32-in-1.0-diffusers", "Apache-2.0", DCAE),
    "dc_ae_f64c128": ("mit-han-lab/dc-ae-f64c128-in-1.0-diffusers", "Apache-2.0", DCAE),
    "dc_ae_f32c32_sana": ("mit-han-lab/dc-ae-f32c32-sana-1.0-diffusers", "Apache-2.0", DCAE),
    "taesd": ("madebyollin/taesd", "MIT", TAESD),
    "taef1": ("madebyollin/taef1", "MIT", TAESD),
    "qwen_image_vae": ("Qwen/Qwen-Image/vae", "Apache-2.0", QWEN),
    "hunyuan_image_vae": ("hunyuanvideo-community/HunyuanImage-2.1-Diffusers/vae", "Tencent Hunyuan", HUNYUAN),
    "rae_dinov2_b": ("nyu-visionx/RAE-dinov2-wReg-base-ViTXL-n08", "MIT", RAE),
    "rae_siglip2_b": ("nyu-visionx/RAE-siglip2-base-p16-i256-ViTXL-n08", "MIT", RAE),
    "rae_mae_b": ("nyu-visionx/RAE-mae-base-p16-ViTXL-n08", "MIT", RAE),
}
ENTRIES = {
    "diffusers": Entry(
        source=DIFFUSERS,
        licence="that of the weights",
        citation=f"von Platen et al., Diffusers: State-of-the-art diffusion models, GitHub 2022, {DIFFUSERS}",
        where="Give a folder with config.json and weights, or a repository on the Hugging Face hub.",
        any_size=True,
    ),
    **{
        name: Entry(
            source=f"https://huggingface.co/{'/'.join(hub.split('/')[:2])}",
            licence=licence,
            citation=citation,
            where=WHERE.format(hub),
            hub=hub,
            unverified=True,
            any_size=not name.startswith("rae_"),
        )
        for name, (hub, licence, citation) in PUBLISHED.items()
    },
}
ENCODER = "encoder."  # the tensors of a model of transformers inside
CLASS_BY_NAME = {  # beginning of a published name -> its class; AutoencoderKL for all others
    "dc_ae_": "AutoencoderDC",
    "tae": "AutoencoderTiny",
    "flux2_": "AutoencoderKLFlux2",
    "qwen_": "AutoencoderKLQwenImage",
    "hunyuan_": "AutoencoderKLHunyuanImage",
    "rae_": "AutoencoderRAE",
}
NOMINAL_SIZE = 256  # px: convolutions take any multiple of their factor
SHIFT, SCALE, MEAN, STD = "shift_factor", "scaling_factor", "latents_mean", "latents_std"
WAYS = {"mean_std": (MEAN, STD), "scale": (SHIFT, SCALE)}  # how a config.json states the scale of latents
CHOICE = "normalization"  # the setting that names one of them


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """The class and its settings as they stand in config.json, and the state dict as it is.

    Raises ValueError for a class that is no autoencoder we know, and for a file without its config.json.
    """
    from ldbench.tokenizers.diffusers import CLASSES, DiffusersAutoencoder

    class_name = settings.get("_class_name")
    if class_name is None:
        raise ValueError(
            "There is no config.json with a `_class_name` beside these weights, and only it says what they are. Give "
            "the whole folder, as `save_pretrained` writes it."
        )
    if class_name not in CLASSES:
        raise ValueError(
            f"config.json is of a {ascii(class_name)[1:-1][:60]}, and tokenizer=diffusers takes {', '.join(CLASSES)}."
        )
    if name in PUBLISHED and class_name != published_class(name):
        raise ValueError(
            f"config.json is of the class {class_name}, and {name} is of {published_class(name)}. For another one say "
            "tokenizer=diffusers tokenizer.weights=PATH."
        )
    own = {key: value for key, value in settings.items() if not key.startswith("_") and key != CHOICE}
    size = NOMINAL_SIZE
    if not CLASSES[class_name].any_size:
        size = DiffusersAutoencoder.size_of(own)
        state = as_installed(class_name, own, state)
    keywords = {"image_size": size, "class_name": class_name, "settings": own}
    return Converted("tokenizer", "diffusers", keywords, {f"model.{key}": value for key, value in state.items()})


def published_class(name: str) -> str:
    """The class of a published autoencoder."""
    return next((found for start, found in CLASS_BY_NAME.items() if name.startswith(start)), "AutoencoderKL")


def as_installed(class_name: str, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names of the installed transformers, whose vision models this class contains.

    Its versions name the same tensors differently. Raises ValueError where the class cannot be built with it.
    """
    import torch

    from ldbench.tokenizers.diffusers import build_empty

    try:
        with torch.device("meta"):
            names = build_empty(class_name, settings).state_dict().keys()
    except ValueError as error:
        raise ValueError(f"{error} Load it without transformers: tokenizer=rae tokenizer.weights=PATH.") from error
    installed = {timm_name(key.removeprefix(ENCODER)): key for key in names if key.startswith(ENCODER)}
    return {
        installed.get(timm_name(key.removeprefix(ENCODER)), key) if key.startswith(ENCODER) else key: value
        for key, value in state.items()
    }


def reads_state(settings: Mapping[str, Any]) -> bool:
    """Whether the statistics of latents stand among the tensors."""
    return settings.get("_class_name") == "AutoencoderKLFlux2"


def latent_stats(settings: Mapping[str, Any], state: Mapping[str, Tensor] | None) -> LatentStats | None:
    """The statistics of latents that a folder states: FLUX.2 in its batch norm, others in config.json.

    Mean and std count before shift and scale; a default of the class counts, and is reported. `state` is read for
    FLUX.2 alone. Raises ValueError where they are stated in two ways, unless the setting `normalization` names one
    (`mean_std` or `scale`), and for half of a pair.
    """
    from ldbench.core.latent_stats import LatentStats, from_settings

    class_name = settings.get("_class_name", "")
    if class_name == "AutoencoderRAE":
        return LatentStats(0.0, 1.0)  # it normalizes inside
    if class_name == "AutoencoderKLFlux2":
        assert state is not None, "see `reads_state`"
        variance = state["bn.running_var"].double() + settings.get("batch_norm_eps", 1e-4)
        mean = state["bn.running_mean"].double().tolist()
        return LatentStats(tuple(mean), tuple(variance.sqrt().tolist()))
    choice = settings.get(CHOICE)
    if choice is not None and choice not in WAYS:
        raise ValueError(f"tokenizer.normalization must be one of {', '.join(WAYS)} or null, got {choice!r:.60}.")
    given = {key: settings[key] for way in WAYS.values() for key in way if settings.get(key) is not None}
    defaults = class_defaults(class_name)
    if choice is not None:
        given = {key: value for key, value in given.items() if key in WAYS[choice]}
    elif {MEAN, STD} <= given.keys():  # what is only a default of the class says nothing beside them
        given = {key: value for key, value in given.items() if key in (MEAN, STD) or value != defaults.get(key)}
    missing = {key: value for key, value in defaults.items() if key not in given and key in settings_of(choice)}
    if not given and missing:
        log.info("The scale of latents is the default of %s: %s.", class_name, missing)
        given = missing
    elif SHIFT in given and SCALE not in given and SCALE in defaults and MEAN not in given:
        given[SCALE] = defaults[SCALE]
    return from_settings(given)


def settings_of(choice: str | None) -> tuple[str, ...]:
    """The settings of one way, or of all."""
    return WAYS[choice] if choice else (*WAYS["mean_std"], *WAYS["scale"])


def class_defaults(class_name: str) -> dict[str, Any]:
    """What a class of diffusers takes for the scale of latents where nothing is given; empty without diffusers."""
    try:
        import diffusers
    except ImportError:
        return {}
    parameters = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    keys = (key for way in WAYS.values() for key in way if key in parameters)
    return {key: parameters[key].default for key in keys if parameters[key].default is not None}
