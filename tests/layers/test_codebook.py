"""Codebooks: mixtures of codes against the official code's numbers, and nearest codes against a computation by hand."""

import pytest
import torch
from torch import Tensor

from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Quantization, Reconstruction
from ldbench.layers.codebook import Codebook
from ldbench.losses.codebook import CodebookLoss, CodeEntropy

Z = torch.cos(0.7 * torch.arange(24.0)).view(2, 4, 3)


def codebook(*, temperature: float | None = 0.07, unit_norm: bool = True) -> Codebook:
    book = Codebook(num_tokens=4, channels=3, num_codebooks=2, size=5, temperature=temperature, unit_norm=unit_norm)
    book.codes.data = torch.sin(torch.arange(30.0)).view(2, 5, 3)
    return book


def entropy(weight: float = 0.01, epsilon: float = 1e-6) -> CodeEntropy:
    return CodeEntropy(weight=weight, start=0, warmup=0, temperature=0.01, epsilon=epsilon)


def term_of(term: torch.nn.Module, found: Quantization) -> Tensor:
    recon = Reconstruction(torch.zeros(2, 3, 4, 4), found.latents, Posterior(found.latents), None, quantization=found)
    return term.weight * term(recon.images, recon, torch.zeros(2))


# computed with the official modules, on these numbers (facts, section 2)
MIXED = """-.0060164 .6752929 .735741 .1356291 -.6000668 -.7840641 -.660472 .0706599 .7368274 .7967998 .2185817
 -.5605994
 .1349433 -.6005715 -.7839238 -.3827011 .4031217 .8183162 .7966768 .2182906 -.560791 .5463026 -.236038 -.8013664"""
D_CODES = """-.0266055 -.0132627 .0122736 .0619416 .0380019 -.0208764 -.0531494 -.0390678 .0109326 -.0578311 -.0502665
 .0035128 .0704047 .0721315 .0075408"""


def test_mixtures_and_their_gradients_are_the_official_ones() -> None:
    book, z = codebook(), Z.clone().requires_grad_()
    found = book(z)
    expected = torch.tensor([float(number) for number in MIXED.split()]).view(2, 4, 3)
    torch.testing.assert_close(found.latents.detach(), expected, atol=1e-6, rtol=1e-5)
    largest = (found.logits / 0.07).softmax(dim=-1).amax(dim=-1).mean()
    torch.testing.assert_close(float(largest), 0.9008449, atol=1e-6, rtol=0)
    term = term_of(entropy(), found)
    torch.testing.assert_close(float(term), -0.010822695680, atol=1e-8, rtol=0)
    (found.latents.square().sum() + term).backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad[0, 0], torch.tensor([-0.0044039, 0.0043319, 0.0064173]), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(z.grad[1, 3], torch.tensor([0.0271457, 0.0033182, -0.0190953]), atol=1e-6, rtol=1e-4)
    by_code = torch.tensor([float(number) for number in D_CODES.split()]).view(5, 3)
    torch.testing.assert_close(book.codes.grad[0], by_code, atol=1e-6, rtol=1e-4)


def test_without_unit_norm_nothing_is_normalized() -> None:
    found = codebook(unit_norm=False)(Z)
    torch.testing.assert_close(
        found.latents[0, 0].detach(), torch.tensor([-0.0008352, 0.8409176, 0.9095346]), atol=1e-6, rtol=1e-5
    )
    torch.testing.assert_close(float(term_of(entropy(), found)), -0.0108227702, atol=1e-8, rtol=0)


def test_mixtures_do_not_depend_on_the_length_of_a_vector() -> None:
    book = codebook()
    torch.testing.assert_close(book(3 * Z).latents, book(Z).latents)


@pytest.mark.parametrize("unit_norm", [True, False])
def test_nearest_codes_are_those_by_hand_and_pass_their_gradient_on(*, unit_norm: bool) -> None:
    book, z = codebook(temperature=None, unit_norm=unit_norm), Z.clone().requires_grad_()
    found = book(z)
    vectors, codes = Z, book.codes.detach()
    if unit_norm:
        vectors, codes = (x / x.norm(dim=-1, keepdim=True) for x in (vectors, codes))
    for image in range(2):
        for token in range(4):
            distances = (codes[token // 2] - vectors[image, token]).square().sum(-1)
            torch.testing.assert_close(found.latents[image, token].detach(), codes[token // 2, distances.argmin()])
            torch.testing.assert_close(found.logits[image, token].detach(), -distances, atol=1e-6, rtol=1e-5)
    direction = torch.randn_like(Z)
    (through,) = torch.autograd.grad((found.latents * direction).sum(), z, retain_graph=True)
    same = Z.clone().requires_grad_()
    plain = torch.nn.functional.normalize(same, dim=-1) if unit_norm else same
    (expected,) = torch.autograd.grad((plain * direction).sum(), same)
    torch.testing.assert_close(through, expected)
    assert torch.autograd.grad(found.latents.sum(), book.codes, allow_unused=True, retain_graph=True)[0] is None
    chosen, given = found.chosen, found.vectors
    assert chosen is not None
    assert given is not None
    loss = term_of(CodebookLoss(weight=1.0, start=0, warmup=0, commitment=0.25), found)
    torch.testing.assert_close(loss, 1.25 * (chosen - given).square().mean())
    (by_vector,) = torch.autograd.grad(loss, given, retain_graph=True)
    torch.testing.assert_close(by_vector, 0.25 * 2 * (given - chosen).detach() / given.numel())


def test_entropy_is_lowest_where_each_token_chooses_and_all_codes_are_chosen() -> None:
    def of(logits: Tensor) -> float:
        latents = torch.zeros(*logits.shape[:2], 3)
        found = Quantization(latents=latents, logits=logits)
        recon = Reconstruction(torch.zeros(1, 3, 4, 4), latents, Posterior(latents), None, quantization=found)
        return float(entropy(weight=1.0)(recon.images, recon, torch.zeros(1)))

    chosen = torch.eye(5)[None]  # five tokens, five codes
    assert of(chosen) == pytest.approx(-torch.tensor(5.0).log().item(), abs=1e-4)
    assert of(chosen[:, :1].expand(1, 5, 5)) == pytest.approx(0, abs=1e-4)
    assert of(torch.zeros(1, 5, 5)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_codebooks": 3}, "num_codebooks=3 must divide num_tokens=4"),
        ({"num_codebooks": 0}, "num_codebooks must be at least 1"),
        ({"size": 0}, "codebook_size must be at least 1"),
        ({"temperature": 0.0}, "temperature must be above zero"),
    ],
)
def test_sizes_out_of_range_are_refused(changes: dict[str, float], message: str) -> None:
    given = {"num_tokens": 4, "channels": 3, "num_codebooks": 2, "size": 5, "temperature": 0.07, "unit_norm": True}
    with pytest.raises(ValueError, match=message):
        Codebook(**given | changes)  # type: ignore[arg-type]


def test_terms_of_codebooks_refuse_latents_without_one() -> None:
    z = torch.zeros(1, 4, 3)
    recon = Reconstruction(torch.zeros(1, 3, 4, 4), z, Posterior(z), None)
    with pytest.raises(ValueError, match="choose tokenizer=softvq or tokenizer=vq"):
        entropy()(recon.images, recon, torch.zeros(1))
    with pytest.raises(ValueError, match=r"mixtures of codes\. Leave it out, or set tokenizer\.model\.latent_head=vq"):
        term_of(CodebookLoss(weight=1.0, start=0, warmup=0, commitment=0.25), codebook()(Z))
