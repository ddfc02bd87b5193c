"""RAE: its encoders, its normalization, and where the statistics come from."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import ldbench
from ldbench.config.components import instantiate
from ldbench.layers.features import FeatureNetwork
from ldbench.pipeline import pipeline, tokenizer_training
from ldbench.pipeline.feature_networks import get_network
from ldbench.pipeline.latent_statistics import FILE
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.tokenizers.rae import RAE

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 3}
DECODER = {"decoder_width": 32, "decoder_depth": 1, "decoder_num_heads": 2, "decoder_mlp_width": 40}
PIXELS = {"pixel_mean": [0.4, 0.5, 0.6], "pixel_std": [0.2, 0.3, 0.4]}
NAMES = ("vit_base_patch14_reg4_dinov2", "vit_base_patch16_siglip_256", "vit_base_patch16_224")


def rae(architecture: str = NAMES[0], *, size: int = 56, patch_size: int = 8, **changes) -> RAE:
    torch.manual_seed(0)
    patch = 14 if "patch14" in architecture else 16
    keywords = {
        "image_size": patch_size * (size // patch),
        "patch_size": patch_size,
        "encoder_architecture": architecture,
        "encoder_settings": TINY,
        "encoder_size": size,
        **PIXELS,
        **DECODER,
    }
    return RAE(**{**keywords, **changes}).eval()


@pytest.mark.parametrize("architecture", NAMES)
def test_a_whole_vision_transformer_of_timm_gives_the_tokens(architecture: str) -> None:
    """Against timm's own model, without its last norm's weight and bias."""
    size = 56 if "patch14" in architecture else 64
    tokenizer = rae(architecture, size=size)
    whole = timm.create_model(architecture, num_classes=0, global_pool="", img_size=size, **TINY).eval()
    tokenizer.init_encoder(whole.state_dict())
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = whole.forward_features(x)[:, whole.num_prefix_tokens :]
        expected = torch.nn.functional.layer_norm(features, (48,))  # its own last norm has weight 1 and bias 0
        torch.testing.assert_close(tokenizer.encoder.tokens(x), expected, rtol=1e-4, atol=1e-4)


def test_weights_of_another_size_of_images_fit_and_those_of_another_model_do_not() -> None:
    tokenizer = rae()
    larger = timm.create_model(NAMES[0], num_classes=0, global_pool="", img_size=112, **TINY)
    tokenizer.init_encoder(larger.state_dict())
    assert tokenizer.encoder.tokens.vit.pos_embed.shape == (1, 16, 48)
    with pytest.raises(ValueError, match=r"not of this encoder: .*timm's own layout"):
        tokenizer.init_encoder({"pos_embed": torch.zeros(1, 5, 48)})
    narrow = timm.create_model(NAMES[0], num_classes=0, global_pool="", embed_dim=32, depth=2, num_heads=2)
    with pytest.raises(ValueError, match="not of this encoder"):
        tokenizer.init_encoder(narrow.state_dict())


def test_latents_are_normalized_for_each_position_and_channel_and_back() -> None:
    tokenizer = rae()
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        features = tokenizer.features(images)
        mean, std = torch.randn(16, 48), torch.rand(16, 48) + 0.5
        tokenizer.set_statistics(mean, std)
        z = tokenizer.encode(images).mean
    torch.testing.assert_close(z, (features - mean) / (std + 1e-5))
    torch.testing.assert_close(tokenizer.denormalize(z), features, rtol=1e-5, atol=1e-5)


def test_a_corruption_acts_on_the_tokens_before_the_normalization() -> None:
    tokenizer = rae()
    tokenizer.set_statistics(torch.randn(16, 48), torch.rand(16, 48) + 0.5)
    seen = []
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        recon = tokenizer(images, corruption=lambda z: seen.append(z) or z + 1)
        torch.testing.assert_close(seen[0], tokenizer.features(images), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            recon.images, tokenizer.decoder(tokenizer.features(images) + 1), rtol=1e-4, atol=1e-4
        )


def test_the_decoders_output_is_scaled_back_to_pixels() -> None:
    tokenizer = rae()
    torch.nn.init.zeros_(tokenizer.decoder.to_pixels.weight)
    torch.nn.init.zeros_(tokenizer.decoder.to_pixels.bias)
    decoded = tokenizer.decode(torch.zeros(1, 16, 48))
    torch.testing.assert_close(decoded[0, :, 0, 0], torch.tensor([0.4, 0.5, 0.6]) * 2 - 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 48}, "images of 32 px, and image_size is 48"),
        ({"encoder_size": 60}, "do not divide"),
        ({"encoder_architecture": "resnet18", "encoder_settings": {}}, "builds no vision transformer 'resnet18'"),
        ({"encoder_settings": {"width": 3}}, "builds no vision transformer"),
        ({"pixel_std": [0.1, 0.2, 0.0]}, "pixel_std"),
        ({"decoder_depth": 0}, "decoder_depth must be positive"),
        ({"encoder_architecture": "FeatureNetwork"}, "build no FeatureNetwork"),
    ],
)
def test_what_cannot_be_built_is_told(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rae(**changes)


def test_a_feature_networks_map_is_the_latent() -> None:
    settings = {"num_classes": 10, "widths": [8, 8, 12], "num_features": 8}
    tokenizer = rae("FeatureNetwork", size=32, image_size=32, patch_size=4, encoder_settings=settings)
    network = FeatureNetwork(image_size=32, **settings).eval()
    tokenizer.init_encoder(network.state_dict())
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    normalized = tokenizer.encoder.pixels.normalize((images + 1) / 2)
    with torch.no_grad():
        assert torch.equal(tokenizer.latent.to_map(tokenizer.features(images)), network.map(normalized))
    with pytest.raises(ValueError, match="another FeatureNetwork"):
        tokenizer.init_encoder(FeatureNetwork(image_size=32, **{**settings, "num_features": 9}).state_dict())


QUICK = ("tokenizer=rae", "data.subset=0.1", "trainer.accelerator=cpu", "trainer.limit_steps=2")
WITHOUT_GAN = ("tokenizer.losses.gan=null", "tokenizer.losses.perceptual=null")


@pytest.mark.trains
def test_a_training_begins_with_statistics_of_the_training_images_and_keeps_the_encoder(tmp_path: Path) -> None:
    cfg = ldbench.compose("train", [*QUICK, *WITHOUT_GAN, f"paths.root={tmp_path}"])
    planned = plan_tokenizer(cfg)
    tokenizer = tokenizer_training.train_stages(planned)
    network = get_network(cfg.tokenizer.encoder_init, cfg)
    trained = tokenizer.encoder.tokens.network.state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in network.state_dict().items())
    images = torch.stack([planned.data.train[index][0] for index in range(len(planned.data.train))])
    with torch.no_grad():
        features = tokenizer.features(images).double()
        z = tokenizer.encode(images).mean
    torch.testing.assert_close(tokenizer.latent_mean, features.mean(dim=0).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokenizer.latent_std, features.std(dim=0, correction=0).float(), rtol=1e-4, atol=1e-5)
    assert z.mean(dim=0).abs().max() < 1e-3
    assert set(load_file(planned.run_folder / FILE)) == {"mean", "std"}


@pytest.mark.trains
def test_kept_statistics_are_taken_and_an_artifact_that_it_starts_from_brings_its_own(tmp_path: Path) -> None:
    overrides = [*QUICK, *WITHOUT_GAN, "~jobs.reconstruct", f"paths.root={tmp_path}"]
    cfg = ldbench.compose("train", overrides)
    folder = pipeline.train(cfg)
    first = ldbench.load(folder)
    small = ["data.subset=0.05", f"init={folder}", "tokenizer.encoder_init=null"]
    second = ldbench.load(pipeline.train(ldbench.compose("train", [*overrides, *small])))
    assert torch.equal(first.latent_mean, second.latent_mean)
    assert not torch.equal(first.decoder.to_pixels.weight, second.decoder.to_pixels.weight)


@pytest.mark.trains
def test_weights_that_are_taken_in_part_bring_no_statistics(tmp_path: Path) -> None:
    overrides = [*QUICK, *WITHOUT_GAN, "~jobs.reconstruct", f"paths.root={tmp_path}"]
    folder = pipeline.train(ldbench.compose("train", overrides))
    more = [f"init={folder}", "init_partial=true", "tokenizer.encoder_init=null"]
    wider = ["tokenizer.model.encoder_settings.widths=[32,64,48]", *more]
    tokenizer = tokenizer_training.train_stages(plan_tokenizer(ldbench.compose("train", [*overrides, *wider])))
    assert tokenizer.latent.channels == 48
    assert tokenizer.latent_std.max() > 0
    assert not torch.equal(tokenizer.latent_std, torch.ones(64, 48))
    assert all(parameter.is_leaf and not parameter.is_inference() for parameter in tokenizer.parameters())


def test_the_digest_covers_the_recipe_of_the_encoders_network() -> None:
    digests = {
        plan_tokenizer(ldbench.compose("train", ["tokenizer=rae", *more])).digest
        for more in ([], ["tokenizer.encoder_init.seed=3"], ["tokenizer.encoder_init=null"])
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["tokenizer.encoder_init.max_steps=0"], "tokenizer.encoder_init=digits: network.max_steps"),
        (["tokenizer.encoder_init=/nowhere"], "tokenizer.encoder_init=/nowhere"),
    ],
)
def test_an_encoder_that_cannot_be_had_is_told_before_any_work(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_tokenizer(ldbench.compose("train", ["tokenizer=rae", *overrides]))


def test_the_encoders_network_must_be_of_the_same_sizes(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, weights)
    overrides = [*QUICK, *WITHOUT_GAN, f"tokenizer.encoder_init={weights}", f"paths.root={tmp_path}"]
    with pytest.raises(ValueError, match="encoder_init: These weights are of another FeatureNetwork"):
        tokenizer_training.dry_run(plan_tokenizer(ldbench.compose("train", overrides)))


def test_the_yaml_for_imagenet_is_the_released_size() -> None:
    cfg = ldbench.compose("train", ["tokenizer=rae_dinov2_b_vit_xl"])
    with torch.device("meta"):
        tokenizer = instantiate(cfg.tokenizer.model, image_size=256)
    assert tokenizer.latent.to_dict() == {"num_tokens": 256, "channels": 768, "grid": [16, 16]}
