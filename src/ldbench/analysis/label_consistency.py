"""Label consistency: how many of an image's nearest latents are of its class. Nothing is trained.

[0] Zhong et al., Diffusing in the Right Space: A Systematic Study of Latent Diffusability, 2026,
    https://arxiv.org/abs/2606.03578 (label neighborhood consistency, LNC@k)
"""

from sklearn.neighbors import NearestNeighbors
from torch import Tensor


def label_consistency(
    train: Tensor,  # (n, D)
    train_y: Tensor,  # (n,)
    test: Tensor,  # (m, D)
    test_y: Tensor,  # (m,)
    *,
    k: int,
) -> Tensor:  # (m,) float64
    """The share of the `k` nearest training items, by Euclidean distance in float64, with the label of a held-out item.

    1 where classes are apart; the share of the item's class among the training items where labels are random.
    [0] looks among the same items; held-out ones are independent of each other given the training items.
    Raises ValueError for fewer training items than `k`, and for features that are not finite.
    """
    if not 1 <= k <= len(train):
        raise ValueError(
            f"{k} neighbors do not exist among {len(train)} training items. Choose k from 1 to {len(train)}."
        )
    if not (train.isfinite().all() and test.isfinite().all()):
        raise ValueError("The latents contain NaN or infinity. Check the tokenizer before measuring it.")
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(train.double().numpy())
    neighbors = train_y.new_tensor(search.kneighbors(test.double().numpy(), return_distance=False))  # (m, k)
    return (train_y[neighbors] == test_y[:, None]).double().mean(dim=1)
