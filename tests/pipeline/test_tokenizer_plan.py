"""Plans: what a digest covers, and what is refused before any work begins."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from ldbench.pipeline import pipeline, tokenizer_plan, tokenizer_training, trainer_settings
from ldbench.pipeline.tokenizer_plan import plan_tokenizer

Compose = Callable[..., DictConfig]
PLAIN: dict[str, str] = {}


def plain(small: Compose) -> str:
    """The digest of a tiny VMAE, whatever its root."""
    if not PLAIN:
        PLAIN["digest"] = plan_tokenizer(small()).digest
    return PLAIN["digest"]


@pytest.mark.parametrize(
    "override",
    [
        "paths.root=/somewhere/else",
        "logger=wandb",
        "logger=tensorboard",
        "trainer.strategy=ddp",
        "trainer.workers=3",
        "trainer.resident=true",
        "trainer.log_every=1",
        "callbacks.reconstructions.every=1",
        "callbacks.checkpoint.every=7",
        "data.name=mine",
        "tokenizer.name=mine",
        "protocol.pixel_rule=truncate",
        "force=true",
        "data.seed=0",
    ],
)
def test_what_changes_no_number_changes_no_digest(small: Compose, override: str) -> None:
    assert plan_tokenizer(small(override)).digest == plain(small)


@pytest.mark.parametrize(
    "override",
    [
        "tokenizer.seed=1",
        "tokenizer.model.width=24",
        "tokenizer.model.position_resize=fresh",
        "tokenizer.losses.kl.std=1.0",
        "~tokenizer.losses.kl",
        "tokenizer.stages.tune.encoder=trainable",
        "tokenizer.stages.tune.max_steps=5",
        "tokenizer.stages.pretrain.optimizer.lr=2e-3",
        "+tokenizer.stages.tune.losses.pixels.weight=2",
        "data.subset=0.2",
        "data=digits_color",
        "trainer.precision=bf16",
        "trainer.threads=2",
        "trainer.devices=2",
        "trainer.compile=true",
        "trainer.limit_steps=2",
        "trainer.overfit_batches=1",
    ],
)
def test_what_changes_numbers_changes_the_digest(small: Compose, override: str) -> None:
    assert plan_tokenizer(small(override)).digest != plain(small)


def test_a_term_set_to_null_is_a_term_left_out(small: Compose) -> None:
    assert (
        plan_tokenizer(small("tokenizer.losses.kl=null")).digest == plan_tokenizer(small("~tokenizer.losses.kl")).digest
    )


def test_the_order_of_stages_counts(small: Compose) -> None:
    cfg = small("tokenizer.stages.pretrain.image_size=32")
    turned = cfg.copy()
    turned.tokenizer.stages = {name: cfg.tokenizer.stages[name] for name in ("tune", "positions", "pretrain")}
    assert plan_tokenizer(turned).digest != plan_tokenizer(cfg).digest


def test_every_trainer_setting_either_counts_or_does_not(small: Compose) -> None:
    kinds = (trainer_settings.NUMERIC, trainer_settings.SHARED, trainer_settings.DISPLAY)
    assert sorted(small().trainer) == sorted(key for kind in kinds for key in kind)


def test_a_revision_of_a_component_changes_the_digest(small: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    from ldbench.losses.terms import PixelMSE
    from ldbench.tokenizers.vmae import VMAE

    before = plan_tokenizer(small()).digest
    for component in (VMAE, PixelMSE):
        with monkeypatch.context() as changed:
            changed.setattr(component, "revision", 2)
            assert plan_tokenizer(small()).digest != before


def test_a_weights_file_counts_by_its_content_and_not_by_its_path(small: Compose, tmp_path: Path) -> None:
    digests = []
    for name, content in (("a.pt", b"one"), ("b.pt", b"one"), ("c.pt", b"two")):
        (tmp_path / name).write_bytes(content)
        term = ("+loss@tokenizer.losses.lpips=lpips", f"tokenizer.losses.lpips.weights.source={tmp_path / name}")
        digests.append(plan_tokenizer(small(*term)).digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["tokenizer.model.patch_size=7"],
            r"stage pretrain \(24 px\): patch_size 7 does not divide the 24 px image. Choose one of \[1, 2, 3",
        ),
        (
            ["tokenizer.image_size=64", "data=digits", "data.image_size=32"],
            "takes 64 px images, but data digits hands over 32 px",
        ),
        (["tokenizer.model.num_heads=3"], "num_heads 3 does not divide width 16"),
        (["trainer.precision=fp16"], "fp16 is for CUDA only"),
        (["tokenizer.name=../x"], r"tokenizer\.name must be letters, digits"),
        (["paths.runs="], r"paths\.runs must not be empty"),
        (
            ["trainer.devices=2", "tokenizer.stages.tune.batch_size=9"],
            "batches of 9 images, which 2 processes cannot share evenly",
        ),
        (["tokenizer.model.width=abc"], r"tokenizer\.model\.width must be a whole number, got 'abc'"),
        (["tokenizer.model.width=-8"], "width must be positive, got -8"),
        (["tokenizer.model.depth=true"], r"tokenizer\.model\.depth must be a whole number, got true"),
        (
            ["tokenizer.stages.pretrain.optimizer.lr=abc"],
            r"stages\.pretrain\.optimizer\.lr must be a number, got 'abc'",
        ),
        (["tokenizer.stages.pretrain.batch_size=0"], "batch_size must be at least 1, got 0"),
        (["tokenizer.stages.pretrain.max_steps=many"], "max_steps must be a whole number, got 'many'"),
        (["tokenizer.stages.pretrain.mask_ratio=2"], r"stages\.pretrain: mask_ratio must lie in \[0, 1\), got 2"),
        (["tokenizer.stages.pretrain.crop_scale=[0.5,2]"], r"crop_scale must be \[least, most\] in \(0, 1\]"),
        (["trainer.devices=0"], r"trainer\.devices must be a whole number of at least 1, got 0"),
        (["trainer.threads=0"], r"trainer\.threads must be a whole number of at least 1, got 0"),
        (["trainer.workers=-1"], r"trainer\.workers must be a whole number of at least 0, got -1"),
        (["trainer.accelerator=abacus"], "There is no accelerator 'abacus' on this machine"),
        (["trainer.strategy=dpp"], r"Unknown trainer\.strategy 'dpp'. Choose one of auto, ddp, fsdp, "),
        (["trainer.precision=fp8"], "Unknown trainer.precision 'fp8'"),
        (["data=folder"], "These need a value: data.root"),
        (["+nothing=1"], "There is no config key nothing"),
        (
            ["+tokenizer.stages.tune.masc_ratio=0.1"],
            r"There is no config key tokenizer\.stages\.tune\.masc_ratio\. Did you mean mask_ratio",
        ),
        (["tokenizer.stages.tune.encoder=cold"], "encoder must be one of trainable, frozen, got 'cold'"),
        (
            ["tokenizer.stages.tune.encoder=frozen", "tokenizer.stages.tune.decoder=frozen"],
            "trains neither encoder nor decoder",
        ),
        (["tokenizer.stages.tune.image_size=24"], "The last stage, tune, ends at 24 px"),
        (["tokenizer.stages.pretrain.image_size=64"], "wants 64 px, more than the tokenizer's 32 px"),
        (
            ["+tokenizer.stages.tune.losses.pixel.weight=2"],
            "changes a loss term pixel that tokenizer.losses does not have. Known: kl, pixels",
        ),
        (["tokenizer.stages.pretrain.optimizer.lr=0"], "Learning rates must satisfy"),
        (["tokenizer.stages.pretrain.ema_decay=1.5"], "ema_decay must lie between 0 and 1"),
        (["data.subset=1.5"], "data.subset is 1.5"),
    ],
)
def test_what_does_not_fit_is_told_before_any_work(
    small: Compose, tmp_path: Path, overrides: list[str], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        pipeline.train(small(*overrides))
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_a_mask_that_hides_everything_is_found_in_the_rehearsal(small: Compose) -> None:
    planned = plan_tokenizer(small("tokenizer.stages.pretrain.mask_ratio=0.95"))
    with pytest.raises(ValueError, match="Stage pretrain cannot train: Cannot keep 0 of 9 tokens"):
        tokenizer_training.dry_run(planned)


def test_a_mask_that_grows_too_large_later_is_found_in_the_rehearsal(small: Compose) -> None:
    law = "+mask@tokenizer.stages.pretrain.mask_ratio=linear"
    numbers = [f"tokenizer.stages.pretrain.mask_ratio.{key}" for key in ("first=0.2", "last=0.95", "steps=3")]
    planned = plan_tokenizer(small(law, *numbers))
    with pytest.raises(ValueError, match="Stage pretrain cannot train: Cannot keep 0 of 9 tokens"):
        tokenizer_training.dry_run(planned)


HOG = "+loss@tokenizer.losses.hog=hog"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["tokenizer.losses.pixels.warmup=-5"], r"tokenizer\.losses\.pixels: warmup must not be negative, got -5"),
        (["tokenizer.losses.pixels.start=-1"], r"tokenizer\.losses\.pixels: start must not be negative"),
        ([HOG, "tokenizer.losses.hog.weight=-1"], r"tokenizer\.losses\.hog: weight must not be negative"),
        ([HOG, "tokenizer.losses.hog.weight=abc"], r"tokenizer\.losses\.hog\.weight must be a number, got 'abc'"),
        (
            [HOG, "tokenizer.losses.hog.teacher.cell_size=x"],
            r"tokenizer\.losses\.hog\.teacher\.cell_size must be a whole number",
        ),
        ([HOG, "tokenizer.losses.hog.depth=0"], "depth must be positive, got 0"),
        ([HOG, "tokenizer.losses.hog.tokens=some"], r"hog\.tokens must be one of masked, all, got 'some'"),
        ([HOG, "+tokenizer.losses.hog.image_size=3"], r"There is no config key tokenizer\.losses\.hog\.image_size"),
        ([HOG, "tokenizer.losses.hog.teacher.cell_size=7"], "cell"),
        (
            ["+loss@tokenizer.losses.gan=adversarial", "tokenizer.losses.gan.largest_balance=-1"],
            r"gan: largest_balance must not be negative",
        ),
        (["+loss@tokenizer.losses.gan=adversarial", "tokenizer.losses.gan.objective=wgan"], "objective is 'wgan'"),
        (
            ["+loss@tokenizer.losses.gan=adversarial", "tokenizer.losses.gan.discriminator.num_layers=5"],
            "needs images of at least 96 px",
        ),
        (
            [
                "+loss@tokenizer.losses.gan=adversarial",
                "tokenizer.losses.gan.discriminator.num_layers=1",
                "tokenizer.losses.gan.balancing=encoder",
            ],
            r"Stage tune cannot train: .*\+\+tokenizer\.stages\.tune\.losses\.gan\.balancing=none",
        ),
    ],
)
def test_what_is_wrong_with_a_loss_term_is_told_before_the_first_step(
    small: Compose, overrides: list[str], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        tokenizer_training.dry_run(plan_tokenizer(small(*overrides)))


def test_weights_that_cannot_be_had_are_told_with_the_key_that_takes_others(small: Compose) -> None:
    cfg = small("+loss@tokenizer.losses.dino=dino", "tokenizer.losses.dino.teacher.weights.source=/nowhere/dino.pth")
    with pytest.raises(ValueError, match=r"There is no file /nowhere/dino\.pth(.|\n)*weights\.source=PATH"):
        plan_tokenizer(cfg)


def test_a_revision_of_compiled_trainings_changes_their_digest_alone(
    small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = plan_tokenizer(small("trainer.compile=true")).digest
    monkeypatch.setattr(tokenizer_plan, "COMPILED_REVISION", 99)
    assert plan_tokenizer(small("trainer.compile=true")).digest != compiled
    assert plan_tokenizer(small()).digest == plain(small)


def test_the_recipe_holds_names_and_no_code(small: Compose) -> None:
    recipe = plan_tokenizer(small()).recipe
    assert recipe["component"] == "vmae"
    assert "_target_" not in str(recipe)
    assert OmegaConf.create(recipe), "plain data"


def test_a_stage_without_a_term_at_its_first_step_is_found_in_the_rehearsal(small: Compose) -> None:
    planned = plan_tokenizer(small("tokenizer.losses.pixels.start=2", "tokenizer.losses.kl.start=2"))
    with pytest.raises(ValueError, match="Stage pretrain has no loss term at its first step"):
        tokenizer_training.dry_run(planned)


def test_whether_flips_keep_the_class_counts(small: Compose, tmp_path: Path) -> None:
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / "images" / label / f"{i}.png")
    words = ("data=folder", f"data.root={tmp_path / 'images'}", "data.subset=null")
    assert plan_tokenizer(small(*words)).digest != plan_tokenizer(small(*words, "data.label_safe_flips=false")).digest


def test_a_stages_change_reaches_into_a_term_and_a_file_counts_by_content_there_too(
    small: Compose, tmp_path: Path
) -> None:
    digests = []
    for name, content in (("a.pt", b"one"), ("b.pt", b"one"), ("c.pt", b"two")):
        (tmp_path / name).write_bytes(content)
        common = ("+loss@tokenizer.losses.lpips=lpips", f"tokenizer.losses.lpips.weights.source={tmp_path / 'a.pt'}")
        cfg = small(*common, f"+tokenizer.stages.tune.losses.lpips.weights.source={tmp_path / name}")
        assert (
            tokenizer_plan.stage_losses(cfg, cfg.tokenizer.stages.tune.losses)["lpips"]["weights"]["_target_"]
            == "ldbench.weights.read_weights"
        )
        digests.append(plan_tokenizer(cfg).digest)
    assert digests[0] == digests[1] != digests[2]
